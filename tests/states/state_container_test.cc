#include "states/state_container.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <zstd.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/states/tiny_states.h"

namespace liger {
namespace {

using ::testing::HasSubstr;
using Coding = StateContainer::Coding;

constexpr size_t kFlagsAt = 12;  // behind the magic and the version
constexpr size_t kSealBytes = 32;

class StateContainerTest : public testing::TestWithParam<std::string> {
 protected:
  const EngineInfo info_ = TinyInfo(GetParam());
  const StateContainer plain_{info_, ""};
  const StateContainer keyed_{info_, "sixteen bytes or more"};
  const std::shared_ptr<SessionContent> content_ = TinyContent(info_);
};

TEST_P(StateContainerTest, ReadsWhatItWrote) {
  for (const auto& [container, coding] : {std::pair(&plain_, Coding::kPlain),
                                          {&keyed_, Coding::kPlain},
                                          {&plain_, Coding::kZstd},
                                          {&keyed_, Coding::kZstd}}) {
    const std::string bytes = *container->Write(*content_, coding);
    EXPECT_LE(std::ssize(bytes), container->max_bytes());
    const auto read = container->Read(bytes);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ((*read)->ledger, content_->ledger);
    EXPECT_EQ((*read)->state->progress.position, 5);
    EXPECT_EQ((*read)->state->progress.hidden, 5);
    ASSERT_EQ((*read)->state->bytes.size(), content_->state->bytes.size());
    EXPECT_EQ(std::memcmp((*read)->state->bytes.data(), content_->state->bytes.data(),
                          content_->state->bytes.size()),
              0);
  }
}

TEST_P(StateContainerTest, EveryCutAndEveryFlippedBitIsSeen) {
  for (const StateContainer* container : {&plain_, &keyed_}) {
    const std::string bytes = *container->Write(*content_);
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(container->Read(bytes.substr(0, size)).ok()) << size;
    }
    EXPECT_FALSE(container->Read(bytes + "x").ok());
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      std::string changed = bytes;
      changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
      EXPECT_FALSE(container->Read(changed).ok()) << bit;
    }
  }
}

TEST_P(StateContainerTest, AKeyKeepsForgersOut) {
  const StateContainer other(info_, "another key of some length");
  for (const StateContainer* maker : {&plain_, &other}) {
    const absl::Status status = keyed_.Read(*maker->Write(*content_)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  }
  EXPECT_EQ(plain_.Read(*keyed_.Write(*content_)).status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_P(StateContainerTest, AKeyedSealIsWhatTheFormatSays) {
  const std::string key = "sixteen bytes or more";
  const std::string bytes = *keyed_.Write(*content_, Coding::kPlain, "here");
  const std::string sealed = bytes.substr(0, bytes.size() - kSealBytes);
  const std::string tag = bytes.substr(sealed.size(), 16);
  const std::string nonce = bytes.substr(sealed.size() + 16);
  const std::string input = nonce + "here";
  const auto data = [](const std::string& text) {
    return reinterpret_cast<const unsigned char*>(text.data());
  };
  unsigned char once[32];
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), data(input), input.size(), once,
       nullptr);
  std::string expected(16, '\0');
  EVP_Q_mac(nullptr, "POLY1305", nullptr, nullptr, nullptr, once, sizeof(once), data(sealed),
            sealed.size(), reinterpret_cast<unsigned char*>(expected.data()), expected.size(),
            nullptr);
  EXPECT_EQ(tag, expected);
  // A nonce is never used twice.
  const std::string again = *keyed_.Write(*content_, Coding::kPlain, "here");
  EXPECT_NE(again.substr(sealed.size() + 16), nonce);
}

TEST_P(StateContainerTest, OneThatIsBoundToAPlaceIsReadThereAlone) {
  for (const StateContainer* container : {&plain_, &keyed_}) {
    const std::string bytes = *container->Write(*content_, Coding::kPlain, "here");
    EXPECT_TRUE(container->Read(bytes, "here").ok());
    EXPECT_FALSE(container->Read(bytes, "there").ok());
    EXPECT_FALSE(container->Read(bytes).ok());
    EXPECT_FALSE(container->Read(*container->Write(*content_), "here").ok());
  }
}

TEST_P(StateContainerTest, RefusesOtherModelsAndShapes) {
  const auto refused = [&](const std::function<void(EngineInfo&)>& change) {
    EngineInfo info = info_;
    change(info);
    SetStateBytes(&info);
    return StateContainer(info, "").Read(*plain_.Write(*content_)).status().code() ==
           absl::StatusCode::kFailedPrecondition;
  };
  EXPECT_TRUE(refused([](EngineInfo& info) { info.state_identity = "other-adapter-f32"; }));
  EXPECT_TRUE(refused([](EngineInfo& info) { info.config.num_layers = 2; }));
  EXPECT_TRUE(refused([](EngineInfo& info) { info.config.window = 2; }));
  EXPECT_TRUE(refused([](EngineInfo& info) { info.config.gate = GateKind::kGsa; }));
}

// A container whose checksum is right and whose content is not.
TEST_P(StateContainerTest, RefusesWhatNoServerWrites) {
  const auto status_of = [&](const std::function<void(SessionContent&, SavedState&)>& change) {
    const std::shared_ptr<SessionContent> content = TinyContent(info_);
    auto state = std::make_shared<SavedState>();
    state->progress = content->state->progress;
    state->bytes = *AlignedBuffer::Allocate(content->state->bytes.size());
    change(*content, *state);
    content->state = state;
    return plain_.Read(*plain_.Write(*content)).status();
  };
  EXPECT_TRUE(status_of([](SessionContent&, SavedState&) {}).ok());
  const auto lost = [&](const std::function<void(SessionContent&, SavedState&)>& change,
                        const std::string& said) {
    const absl::Status status = status_of(change);
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(said));
  };
  lost(
      [](SessionContent& c, SavedState&) {
        c.ledger = TokenLedger({1, 2, 10, 4, 5});
      },
      "token 10");
  lost(
      [](SessionContent& c, SavedState&) {
        c.ledger = TokenLedger({1, 2, -1, 4, 5});
      },
      "token -1");
  lost([](SessionContent& c, SavedState&) { c.ledger = TokenLedger({1, 2, 3, 4}); }, "ledger of 4");
  lost([](SessionContent& c, SavedState&) { c.ledger.Append({1}); }, "ledger of 7");
  lost([](SessionContent&, SavedState& s) { s.progress.committed = 6; }, "committed 6");
  lost([](SessionContent&, SavedState& s) { s.progress.folded = 16; }, "folded 16");
  lost([](SessionContent&, SavedState& s) { s.progress.folded = -16; }, "folded -16");
  lost([](SessionContent&, SavedState& s) { s.progress.hidden = 4; }, "hidden 4");
  lost([](SessionContent&, SavedState& s) { s.progress.position = int64_t{1} << 62; }, "position");
}

TEST_P(StateContainerTest, RefusesNumbersThatAreNotFinite) {
  const size_t size = content_->state->bytes.size();
  const std::string sealed = *plain_.Write(*content_);
  const std::string unsealed = sealed.substr(0, sealed.size() - kSealBytes);
  const float bad[] = {std::nanf(""), std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity()};
  for (const float number : bad) {
    // In the recurrence, in the rows (the upper half too) and in the last hidden vector.
    for (const size_t at : {size_t{0}, size_t{16}, size - 4}) {
      std::string changed = unsealed;
      std::memcpy(changed.data() + changed.size() - size + at, &number, sizeof(number));
      const absl::Status read = plain_.Read(plain_.Sealed("", changed)).status();
      EXPECT_TRUE(absl::IsDataLoss(read)) << read;
      EXPECT_THAT(std::string(read.message()), HasSubstr("not finite"));

      const std::shared_ptr<SessionContent> content = TinyContent(info_);
      std::memcpy(content->state->bytes.data() + at, &number, sizeof(number));
      EXPECT_TRUE(absl::IsDataLoss(plain_.Write(*content).status()));
    }
  }
}

TEST_P(StateContainerTest, LargeStatesAreReadInPieces) {
  EngineInfo info = info_;
  info.config.head_dim = 32;
  info.config.num_layers = 17;
  info.config.window = 64;
  SetStateBytes(&info);
  const std::shared_ptr<SessionContent> content = TinyContent(info);
  const auto size = static_cast<size_t>(info.state_bytes);
  ASSERT_GT(size, 3 << 16);
  for (const auto& key : {"", "sixteen bytes or more"}) {
    const StateContainer container(info, key);
    const std::string sealed = *container.Write(*content, Coding::kPlain, "here");
    const auto read = container.Read(sealed, "here");
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(std::memcmp((*read)->state->bytes.data(), content->state->bytes.data(), size), 0);
    const size_t state_at = sealed.size() - kSealBytes - size;
    for (size_t at = 0; at < size; at += 4096) {
      std::string changed = sealed;
      changed[state_at + at] = static_cast<char>(changed[state_at + at] ^ 1);
      EXPECT_FALSE(container.Read(changed, "here").ok()) << at;
      // Sealed as a server would, and yet not finite.
      changed = sealed.substr(0, sealed.size() - kSealBytes);
      const float bad = std::numeric_limits<float>::infinity();
      std::memcpy(changed.data() + state_at + at, &bad, sizeof(bad));
      const absl::Status status = container.Read(container.Sealed("", changed)).status();
      EXPECT_THAT(std::string(status.message()), HasSubstr("not finite")) << at;
    }
  }
}

// A device that fails while a state is copied from it leaves bytes that no server may keep.
TEST_P(StateContainerTest, DoesNotWriteAStateThatItsDeviceLost) {
  class LostCopy : public HostCopy {
   public:
    explicit LostCopy(const AlignedBuffer& to) : to_(to) {}
    void Wait() const override { std::memset(to_.data(), 0xff, to_.size()); }

   private:
    const AlignedBuffer& to_;
  };
  const auto state = SavedStateFactory(content_->state->bytes.size()).New();
  state->progress = content_->state->progress;
  state->copy = std::make_shared<LostCopy>(state->bytes);
  content_->state = state;
  EXPECT_TRUE(absl::IsDataLoss(plain_.Write(*content_).status()));
}

TEST_P(StateContainerTest, TheStateIsAsLargeAsTheModels) {
  const size_t size = content_->state->bytes.size();
  const std::string sealed = *plain_.Write(*content_);
  const std::string before = sealed.substr(0, sealed.size() - kSealBytes - size - sizeof(int64_t));
  const auto status_of = [&](std::string bytes, int64_t claimed, uint32_t flags) {
    bytes.insert(0, reinterpret_cast<const char*>(&claimed), sizeof(claimed));
    bytes.insert(0, before);
    std::memcpy(bytes.data() + kFlagsAt, &flags, sizeof(flags));
    return plain_.Read(plain_.Sealed("", bytes)).status();
  };
  const auto frame_of = [](const std::string& bytes) {
    std::string frame(ZSTD_compressBound(bytes.size()), '\0');
    frame.resize(ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), 1));
    return frame;
  };
  const auto read = [&](const std::string& bytes, uint32_t flags) {
    return status_of(bytes, std::ssize(bytes), flags);
  };
  constexpr uint32_t kCompressed = 2;
  EXPECT_TRUE(read(std::string(size, '\0'), 0).ok());
  EXPECT_TRUE(read(frame_of(std::string(size, '\0')), kCompressed).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(read(std::string(size, '\0'), 4)));

  for (const size_t other : {size_t{0}, size_t{8}, size - 1, size + 1, 1000 * size}) {
    EXPECT_TRUE(absl::IsDataLoss(read(std::string(other, '\0'), 0))) << other;
    // The last are frames that would fill more than there is.
    EXPECT_TRUE(absl::IsDataLoss(read(frame_of(std::string(other, '\0')), kCompressed))) << other;
  }
  EXPECT_TRUE(absl::IsDataLoss(read(std::string(size, '\0'), kCompressed)));
  for (const int64_t claimed : {int64_t{-1}, std::ssize(sealed), int64_t{1} << 62}) {
    EXPECT_TRUE(absl::IsDataLoss(status_of(std::string(size, '\0'), claimed, 0))) << claimed;
  }
}

INSTANTIATE_TEST_SUITE_P(RowTypes, StateContainerTest, testing::Values("f32", "bf16"),
                         [](const auto& info) { return info.param; });

TEST_P(StateContainerTest, OtherBytesAreSealedToo) {
  const StateContainer other(info_, "another key of some length");
  for (const StateContainer* container : {&plain_, &keyed_}) {
    const std::string sealed = container->Sealed("KIND", "some bytes");
    EXPECT_EQ(*container->Unsealed("KIND", sealed), "some bytes");
    EXPECT_FALSE(container->Unsealed("SORT", sealed).ok());
    EXPECT_FALSE(other.Unsealed("KIND", sealed).ok());
    for (size_t i = 0; i < sealed.size(); ++i) {
      std::string changed = sealed;
      changed[i] ^= 1;
      EXPECT_FALSE(container->Unsealed("KIND", changed).ok()) << i;
      EXPECT_FALSE(container->Unsealed("KIND", sealed.substr(0, i)).ok()) << i;
    }
  }
}

}  // namespace
}  // namespace liger
