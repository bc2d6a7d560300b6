#include "engine/text/sentence_piece_model.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/text/sentence_piece_bpe.h"

namespace liger {
namespace {

// One field of a message in protobuf's wire format (protobuf.dev/programming-guides/encoding).
struct Field {
  uint32_t number = 0;
  uint64_t value = 0;       // of a varint or a fixed number
  absl::string_view bytes;  // of what has a length
  bool has_bytes = false;
};

class WireReader {
 public:
  explicit WireReader(absl::string_view bytes) : bytes_(bytes), size_(bytes.size()) {}

  bool Done() const { return bytes_.empty(); }

  absl::StatusOr<Field> Next() {
    LIGER_ASSIGN_OR_RETURN(const uint64_t key, ReadVarint());
    Field field = {.number = static_cast<uint32_t>(key >> 3)};
    switch (key & 7) {
      case 0: {
        LIGER_ASSIGN_OR_RETURN(field.value, ReadVarint());
        return field;
      }
      case 1:
        return ReadFixed(8, field);
      case 2: {
        LIGER_ASSIGN_OR_RETURN(const uint64_t size, ReadVarint());
        if (size > bytes_.size()) return Damaged("a field is longer than what is left");
        field.bytes = bytes_.substr(0, size);
        field.has_bytes = true;
        bytes_.remove_prefix(size);
        return field;
      }
      case 5:
        return ReadFixed(4, field);
      default:
        return Damaged("a field has an unknown wire type");
    }
  }

 private:
  absl::Status Damaged(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("no valid protobuf at byte ", size_ - bytes_.size(), ": ", what));
  }

  absl::StatusOr<uint64_t> ReadVarint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (bytes_.empty()) return Damaged("a number is cut short");
      const auto byte = static_cast<uint8_t>(bytes_[0]);
      bytes_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    return Damaged("a number has more than 64 bits");
  }

  absl::StatusOr<Field> ReadFixed(size_t size, Field field) {
    if (bytes_.size() < size) return Damaged("a number is cut short");
    std::memcpy(&field.value, bytes_.data(), size);
    bytes_.remove_prefix(size);
    return field;
  }

  absl::string_view bytes_;
  const size_t size_;
};

// The numbers of the fields that are read.
enum ModelField : uint32_t { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3 };
enum PieceField : uint32_t { kPiece = 1, kScore = 2, kType = 3 };
enum TrainerField : uint32_t { kModelType = 3, kWhitespaceAsSuffix = 24, kBosId = 41 };
enum NormalizerField : uint32_t {
  kCharsmap = 2,
  kAddDummyPrefix = 3,
  kRemoveExtraWhitespaces = 4,
  kEscapeWhitespaces = 5,
};

absl::Status ReadPiece(absl::string_view bytes, PieceVocabulary* vocabulary) {
  absl::string_view piece;
  float score = 0;
  auto type = static_cast<int64_t>(TokenType::kNormal);
  for (WireReader reader(bytes); !reader.Done();) {
    LIGER_ASSIGN_OR_RETURN(const Field field, reader.Next());
    if (field.number == kPiece) piece = field.bytes;
    if (field.number == kScore) {
      const auto bits = static_cast<uint32_t>(field.value);
      std::memcpy(&score, &bits, sizeof(score));
    }
    if (field.number == kType) type = static_cast<int64_t>(field.value);
  }
  vocabulary->pieces.push_back(piece);
  vocabulary->scores.push_back(score);
  vocabulary->types.push_back(type);
  return absl::OkStatus();
}

absl::Status ReadTrainerSpec(absl::string_view bytes, int64_t* bos) {
  constexpr uint64_t kBpe = 2;
  uint64_t model_type = 1;  // unigram, the default
  for (WireReader reader(bytes); !reader.Done();) {
    LIGER_ASSIGN_OR_RETURN(const Field field, reader.Next());
    if (field.number == kModelType) model_type = field.value;
    if (field.number == kBosId) *bos = static_cast<int32_t>(field.value);
    if (field.number == kWhitespaceAsSuffix && field.value != 0) {
      return absl::InvalidArgumentError("trainer_spec.treat_whitespace_as_suffix is not supported");
    }
  }
  if (model_type == kBpe) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("trainer_spec.model_type is ", model_type, "; supported is 2 (BPE)"));
}

absl::Status ReadNormalizerSpec(absl::string_view bytes, PieceVocabulary* vocabulary) {
  bool removes_whitespace = true;
  for (WireReader reader(bytes); !reader.Done();) {
    LIGER_ASSIGN_OR_RETURN(const Field field, reader.Next());
    if (field.number == kCharsmap && !field.bytes.empty()) {
      return absl::InvalidArgumentError(
          "normalizer_spec.precompiled_charsmap is not supported: the normalizer must be identity");
    }
    if (field.number == kAddDummyPrefix && field.value == 0) {
      vocabulary->prefix = PieceVocabulary::Prefix::kNone;
    }
    if (field.number == kRemoveExtraWhitespaces) removes_whitespace = field.value != 0;
    if (field.number == kEscapeWhitespaces && field.value == 0) {
      return absl::InvalidArgumentError("normalizer_spec.escape_whitespaces must be on");
    }
  }
  if (!removes_whitespace) return absl::OkStatus();
  return absl::InvalidArgumentError("normalizer_spec.remove_extra_whitespaces is not supported");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseSentencePieceModel(absl::string_view bytes) {
  PieceVocabulary vocabulary;
  int64_t bos = 1;  // the default; -1: none
  bool has_trainer = false;
  bool has_normalizer = false;
  for (WireReader reader(bytes); !reader.Done();) {
    LIGER_ASSIGN_OR_RETURN(const Field field, reader.Next());
    if (!field.has_bytes) continue;
    if (field.number == kPieces) {
      if (vocabulary.pieces.size() == SentencePieceBpe::kMaxTokens) {
        return absl::InvalidArgumentError(
            absl::StrCat("pieces has more than ", SentencePieceBpe::kMaxTokens, " entries"));
      }
      LIGER_RETURN_IF_ERROR(ReadPiece(field.bytes, &vocabulary));
    } else if (field.number == kTrainerSpec) {
      has_trainer = true;
      LIGER_RETURN_IF_ERROR(ReadTrainerSpec(field.bytes, &bos));
    } else if (field.number == kNormalizerSpec) {
      has_normalizer = true;
      LIGER_RETURN_IF_ERROR(ReadNormalizerSpec(field.bytes, &vocabulary));
    }
  }
  if (vocabulary.pieces.empty() || !has_trainer || !has_normalizer) {
    return absl::InvalidArgumentError(
        "holds no SentencePiece model: pieces, trainer_spec or normalizer_spec is missing (of a "
        "model with a file in tiktoken's format, tokenizer.json is needed)");
  }
  LIGER_ASSIGN_OR_RETURN(std::unique_ptr<SentencePieceBpe> tokenizer,
                         SentencePieceBpe::Create(vocabulary));
  if (bos >= tokenizer->vocab_size()) {
    return absl::InvalidArgumentError(absl::StrCat("trainer_spec.bos_id is ", bos, "; there are ",
                                                   tokenizer->vocab_size(), " pieces"));
  }
  // As Llama 2 and Mistral, the models with such files, were trained.
  if (bos >= 0) tokenizer->set_bos(static_cast<TokenId>(bos));
  return tokenizer;
}

}  // namespace liger
