// OpenAI's completions and chat completions, streamed over HTTP by curl's multi interface.

#include <curl/curl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/bench/driver.h"
#include "client/bench/http_get.h"
#include "client/bench/sse_parser.h"

namespace liger::bench {
namespace {

using nlohmann::json;

// Enough of an error's body to say what was wrong.
constexpr size_t kMaxErrorBody = 2048;

std::string Endpoint(const BenchConfig& config, absl::string_view path) {
  absl::string_view server = config.server;
  absl::ConsumeSuffix(&server, "/");
  return absl::StrCat(server, path);
}

json MakeBody(const BenchConfig& config, const StreamRequest& request) {
  json body = {{"stream", true},
               {"stream_options", {{"include_usage", true}}},
               {"max_tokens", request.max_tokens},
               {"temperature", config.temperature},
               {"seed", config.seed}};
  if (!config.model.empty()) body["model"] = config.model;
  if (config.ignore_eos) body["ignore_eos"] = true;
  if (!request.messages.empty()) {
    json& messages = body["messages"] = json::array();
    for (const Message& message : request.messages) {
      messages.push_back({{"role", message.role}, {"content", message.content}});
    }
  } else if (!request.token_ids.empty()) {
    body["prompt"] = request.token_ids;
  } else {
    body["prompt"] = request.prompt;
  }
  return body;
}

// The text that a chunk adds, of either endpoint; empty where it adds none.
absl::string_view ChunkText(const json& chunk) {
  const auto choices = chunk.find("choices");
  if (choices == chunk.end() || !choices->is_array() || choices->empty()) return {};
  const json& choice = choices->front();
  if (!choice.is_object()) return {};
  const auto delta = choice.find("delta");
  const json& holder = delta != choice.end() && delta->is_object() ? *delta : choice;
  for (const char* field : {"text", "content", "reasoning_content"}) {
    const auto text = holder.find(field);
    if (text != holder.end() && text->is_string()) {
      const auto& value = text->get_ref<const std::string&>();
      if (!value.empty()) return value;
    }
  }
  return {};
}

int64_t CountField(const json& object, const char* name) {
  const auto field = object.find(name);
  return field != object.end() && field->is_number_integer() ? field->get<int64_t>() : -1;
}

struct EasyCleanup {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
using EasyHandle = std::unique_ptr<CURL, EasyCleanup>;

struct HttpStream {
  int64_t number = 0;
  EasyHandle handle;
  std::string body;
  SseParser parser;
  StreamEnd end;
  std::string error_body;
  bool done = false;       // the stream's end mark was read
  bool cancelled = false;  // by the caller
  StreamSink* sink = nullptr;
};

void OnData(HttpStream* stream, absl::string_view data) {
  if (data == "[DONE]") {
    stream->done = true;
    return;
  }
  const json chunk = json::parse(data.begin(), data.end(), nullptr, /*allow_exceptions=*/false);
  if (!chunk.is_object()) {
    stream->end.code = "MALFORMED";
    stream->end.message = absl::StrCat("not a JSON object: ", data.substr(0, 200));
    return;
  }
  if (chunk.contains("error") && !chunk["error"].is_null()) {
    stream->end.code = "STREAM ERROR";
    stream->end.message =
        chunk["error"].dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 500);
    return;
  }
  if (const auto usage = chunk.find("usage"); usage != chunk.end() && usage->is_object()) {
    stream->end.prompt_tokens = CountField(*usage, "prompt_tokens");
    stream->end.completion_tokens = CountField(*usage, "completion_tokens");
  }
  const absl::string_view text = ChunkText(chunk);
  if (!text.empty()) stream->sink->OnTokens(stream->number, Clock::now(), 1, text);
}

// The status of the answer so far.
int HttpStatus(CURL* handle) {
  long status = 0;  // NOLINT(google-runtime-int): curl's type
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  return static_cast<int>(status);
}

// curl's write callback.
size_t OnBytes(char* bytes, size_t /*one*/, size_t count, void* user) {
  auto* stream = static_cast<HttpStream*>(user);
  if (stream->cancelled) return 0;
  if (HttpStatus(stream->handle.get()) != 200) {
    stream->error_body.append(bytes, std::min(count, kMaxErrorBody - stream->error_body.size()));
    return count;
  }
  const bool parsed =
      stream->parser.Feed(absl::string_view(bytes, count), [stream](absl::string_view data) {
        if (!stream->cancelled && stream->end.code == "OK") OnData(stream, data);
      });
  if (!parsed) stream->end = {.code = "MALFORMED", .message = "an event of more than 16 MiB"};
  return stream->cancelled || !parsed ? 0 : count;
}

class HttpDriver : public Driver {
 public:
  HttpDriver(const BenchConfig& config, StreamSink* sink)
      : config_(config), sink_(sink), multi_(curl_multi_init()) {
    headers_ = curl_slist_append(nullptr, "Content-Type: application/json");
    headers_ = curl_slist_append(headers_, "Expect:");
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, 10000L);
  }

  ~HttpDriver() override {
    for (auto& [number, stream] : streams_) {
      curl_multi_remove_handle(multi_, stream->handle.get());
    }
    streams_.clear();
    idle_.clear();
    curl_multi_cleanup(multi_);
    curl_slist_free_all(headers_);
  }

  void Start(int64_t number, const StreamRequest& request) override {
    auto stream = std::make_unique<HttpStream>();
    stream->number = number;
    stream->sink = sink_;
    if (idle_.empty()) {
      stream->handle.reset(curl_easy_init());
    } else {
      stream->handle = std::move(idle_.back());
      idle_.pop_back();
    }
    CURL* handle = stream->handle.get();
    // A prompt that is not UTF-8 is the dataset's fault, not a reason to end the run.
    stream->body = MakeBody(config_, request).dump(-1, ' ', false, json::error_handler_t::replace);
    const std::string url =
        Endpoint(config_, request.messages.empty() ? "/v1/completions" : "/v1/chat/completions");
    curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers_);
    curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(stream->body.size()));
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, stream->body.c_str());
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(config_.connect_timeout * 1000));
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(config_.deadline * 1000));
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, OnBytes);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, stream.get());
    curl_easy_setopt(handle, CURLOPT_PRIVATE, stream.get());
    curl_multi_add_handle(multi_, handle);
    streams_.emplace(number, std::move(stream));
  }

  void Cancel(int64_t number) override {
    const auto found = streams_.find(number);
    if (found == streams_.end() || found->second->cancelled) return;
    found->second->cancelled = true;
    cancelled_.push_back(number);
  }

  void Poll(Clock::time_point until) override {
    const Clock::time_point now = Clock::now();
    const auto wait = CoarseWait(now, until);
    int running = 0;
    int ready = 0;
    // Requests that were just started need a first push before there is something to wait for.
    curl_multi_perform(multi_, &running);
    if (!HandleEnds()) {
      curl_multi_poll(multi_, nullptr, 0, static_cast<int>(wait.count()), &ready);
      if (ready > 0) {
        curl_multi_perform(multi_, &running);
        HandleEnds();
      } else if (wait.count() == 0 && until > now) {
        std::this_thread::sleep_for(std::min<Clock::duration>(until - now, kNap));
      }
    }
  }

 private:
  // True if a stream ended.
  bool HandleEnds() {
    bool any = false;
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode result = message->data.result;
      HttpStream* stream = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &stream);
      SetEnd(stream, result);
      End(stream->number);
      any = true;
    }
    for (const int64_t number : std::exchange(cancelled_, {})) {
      const auto found = streams_.find(number);
      if (found == streams_.end()) continue;
      found->second->end.code = "CANCELLED";
      End(number);
      any = true;
    }
    return any;
  }

  void SetEnd(HttpStream* stream, CURLcode result) const {
    StreamEnd& end = stream->end;
    const int status = HttpStatus(stream->handle.get());
    if (stream->cancelled) {
      end.code = "CANCELLED";
    } else if (end.code != "OK") {
      return;  // what the stream itself said
    } else if (result == CURLE_OPERATION_TIMEDOUT && config_.deadline > 0) {
      end.code = "DEADLINE_EXCEEDED";
      end.message = curl_easy_strerror(result);
    } else if (result != CURLE_OK) {
      end.code = "CONNECTION";
      end.message = curl_easy_strerror(result);
      end.unreachable = true;
    } else if (status != 200) {
      end.code = absl::StrCat("HTTP ", status);
      end.message = stream->error_body;
      end.unreachable = status == 502 || status == 503 || status == 504;
    } else if (!stream->done) {
      end.code = "TRUNCATED";
      end.message = "the stream ended without its [DONE] mark";
    }
  }

  void End(int64_t number) {
    const auto node = streams_.extract(number);
    const std::unique_ptr<HttpStream>& stream = node.mapped();
    curl_multi_remove_handle(multi_, stream->handle.get());
    curl_easy_reset(stream->handle.get());
    idle_.push_back(std::move(stream->handle));
    sink_->OnEnd(number, Clock::now(), stream->end);
  }

  const BenchConfig config_;
  StreamSink* const sink_;
  CURLM* multi_;
  curl_slist* headers_ = nullptr;
  std::unordered_map<int64_t, std::unique_ptr<HttpStream>> streams_;
  std::vector<int64_t> cancelled_;
  std::vector<EasyHandle> idle_;
};

}  // namespace

std::unique_ptr<Driver> CreateHttpDriver(const BenchConfig& config, StreamSink* sink) {
  return std::make_unique<HttpDriver>(config, sink);
}

absl::Status CheckHttpServer(const BenchConfig& config, json* info) {
  const auto body = HttpGet(Endpoint(config, "/v1/models"), config.connect_timeout);
  if (absl::IsUnavailable(body.status())) return body.status();
  if (!body.ok()) return absl::OkStatus();  // a server without this path; being there is enough
  const json models = json::parse(*body, nullptr, /*allow_exceptions=*/false);
  if (models.is_object()) *info = models;
  return absl::OkStatus();
}

}  // namespace liger::bench
