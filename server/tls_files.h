// The certificate, key and client authority that the server's ports use, read from files that may
// be replaced while it serves.

#ifndef LIGER_SERVER_TLS_FILES_H_
#define LIGER_SERVER_TLS_FILES_H_

#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace liger {

struct TlsPaths {
  std::string certificate;  // PEM: the server's own first, then its intermediates
  std::string key;          // PEM, without a passphrase
  std::string client_ca;    // PEM: who signs clients' certificates; empty: clients show none
};

// What the files held, checked.
struct TlsMaterial {
  std::string certificate;
  std::string key;
  std::string client_ca;
  absl::Time expiry;  // of the server's own certificate
};

// INVALID_ARGUMENT names the flag and the file: one that cannot be read or holds no PEM of its
// kind, a key of another certificate, a certificate that is expired or not valid yet at `now`.
absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsPaths& paths, absl::Time now);

// The material in force. Thread-safe.
class TlsFiles {
 public:
  static absl::StatusOr<std::unique_ptr<TlsFiles>> Load(TlsPaths paths);

  // Reads the files anew; connections to come use them. Returns whether they differ. With an error
  // what was in force stays.
  absl::StatusOr<bool> Reload();

  // Another pointer after every change.
  std::shared_ptr<const TlsMaterial> current() const;

 private:
  TlsFiles(TlsPaths paths, TlsMaterial material);

  const TlsPaths paths_;
  mutable std::mutex mutex_;
  std::shared_ptr<const TlsMaterial> current_;  // guarded by mutex_
};

}  // namespace liger

#endif  // LIGER_SERVER_TLS_FILES_H_
