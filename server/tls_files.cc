#include "server/tls_files.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/status_macros.h"
#include "server/openssl_objects.h"
#include "server/read_file.h"

namespace liger {
namespace {

constexpr char kCertificateFlag[] = "--tls-cert";
constexpr char kKeyFlag[] = "--tls-key";
constexpr char kClientCaFlag[] = "--tls-client-ca";

// A key with a passphrase is none: nobody is there to type it.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*context*/) { return -1; }

absl::Status Wrong(absl::string_view flag, const std::string& path, absl::string_view what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path, " ", what));
}

absl::StatusOr<absl::Time> ToTime(const ASN1_TIME* time) {
  tm fields{};
  if (ASN1_TIME_to_tm(time, &fields) != 1) return absl::InvalidArgumentError("no date");
  return absl::FromTM(fields, absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsPaths& paths, absl::Time now) {
  TlsMaterial material;
  LIGER_ASSIGN_OR_RETURN(material.certificate, ReadSmallFile(kCertificateFlag, paths.certificate));
  LIGER_ASSIGN_OR_RETURN(material.key, ReadSmallFile(kKeyFlag, paths.key));

  const Certificate own(
      PEM_read_bio_X509(Reader(material.certificate).get(), nullptr, NoPassphrase, nullptr));
  if (own == nullptr) {
    return Wrong(kCertificateFlag, paths.certificate, "holds no PEM certificate");
  }
  const Key key(
      PEM_read_bio_PrivateKey(Reader(material.key).get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) {
    return Wrong(kKeyFlag, paths.key, "holds no PEM key, or one with a passphrase");
  }
  if (X509_check_private_key(own.get(), key.get()) != 1) {
    return Wrong(kKeyFlag, paths.key, absl::StrCat("is not the key of ", paths.certificate));
  }
  const auto begin = ToTime(X509_get0_notBefore(own.get()));
  const auto expiry = ToTime(X509_get0_notAfter(own.get()));
  if (!begin.ok() || !expiry.ok()) {
    return Wrong(kCertificateFlag, paths.certificate, "has no dates of validity");
  }
  if (now < *begin || now > *expiry) {
    return Wrong(kCertificateFlag, paths.certificate,
                 absl::StrCat(now < *begin ? "is valid only from " : "expired at ",
                              absl::FormatTime(now < *begin ? *begin : *expiry)));
  }
  material.expiry = *expiry;
  if (!paths.client_ca.empty()) {
    LIGER_ASSIGN_OR_RETURN(material.client_ca, ReadSmallFile(kClientCaFlag, paths.client_ca));
    const Certificate authority(
        PEM_read_bio_X509(Reader(material.client_ca).get(), nullptr, NoPassphrase, nullptr));
    if (authority == nullptr) {
      return Wrong(kClientCaFlag, paths.client_ca, "holds no PEM certificate");
    }
  }
  return material;
}

TlsFiles::TlsFiles(TlsPaths paths, TlsMaterial material)
    : paths_(std::move(paths)),
      current_(std::make_shared<const TlsMaterial>(std::move(material))) {}

absl::StatusOr<std::unique_ptr<TlsFiles>> TlsFiles::Load(TlsPaths paths) {
  LIGER_ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles(paths, absl::Now()));
  return std::unique_ptr<TlsFiles>(new TlsFiles(std::move(paths), std::move(material)));
}

absl::StatusOr<bool> TlsFiles::Reload() {
  LIGER_ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles(paths_, absl::Now()));
  std::lock_guard lock(mutex_);
  if (material.certificate == current_->certificate && material.key == current_->key &&
      material.client_ca == current_->client_ca) {
    return false;
  }
  current_ = std::make_shared<const TlsMaterial>(std::move(material));
  return true;
}

std::shared_ptr<const TlsMaterial> TlsFiles::current() const {
  std::lock_guard lock(mutex_);
  return current_;
}

}  // namespace liger
