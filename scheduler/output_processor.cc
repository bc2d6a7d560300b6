#include "scheduler/output_processor.h"

#include <algorithm>
#include <utility>

namespace liger {

void OutputProcessor::Process(StepResults* results, std::vector<OutputFeedback>* feedback) {
  for (RequestOutput* request : results->started) {
    const Usage& usage = request->usage;
    request->sink->OnStarted(
        {.prompt_tokens = usage.prompt_tokens,
         .cached_tokens = request->resumed ? usage.prompt_tokens : usage.cached_tokens});
    if (!request->logprobs && !request->echo.empty()) {
      Echo(request, std::ssize(request->echo), {}, results->time);
    }
  }
  for (const ScoredPrompt& scored : results->scored) {
    // The first token of a prompt follows nothing and has no score.
    const int unscored = scored.request->echoed == 0 ? 1 : 0;
    Echo(scored.request, scored.count + unscored,
         absl::MakeConstSpan(results->output.scored).subspan(scored.first, scored.count),
         results->time);
  }
  for (const DrawnToken& drawn : results->drawn) Draw(drawn, *results, feedback);
  for (FinishedSequence& sequence : results->finished) Finish(sequence);
  for (EndedRequest& ended : results->ended) End(ended, results->time);
  results->Clear();
}

void OutputProcessor::Echo(RequestOutput* request, int64_t count,
                           absl::Span<const TokenResult> scores, SteadyTime time) {
  if (count == 0) return;
  const int64_t total = std::ssize(request->echo);
  const int64_t begin = request->echoed;
  request->echoed += count;
  const auto tokens = absl::MakeConstSpan(request->echo).subspan(begin, count);

  OutputDelta delta{.first_token_index = begin - total, .time = time};
  delta.token_ids.assign(tokens.begin(), tokens.end());
  if (request->echo_detokenizer) {
    for (int64_t i = std::max(begin, request->echo_text_begin); i < request->echoed; ++i) {
      delta.text += request->echo_detokenizer->Push(request->echo[i]);
    }
    if (request->echoed == total) delta.text += request->echo_detokenizer->Flush();
  }
  if (request->logprobs) {
    if (begin == 0) delta.logprobs.push_back({.id = tokens[0]});
    delta.logprobs.insert(delta.logprobs.end(), scores.begin(), scores.end());
  }
  for (size_t i = 0; i < request->texts.size(); ++i) {
    OutputDelta copy = delta;
    copy.index = static_cast<int>(i);
    request->sink->OnDelta(copy);
  }
}

void OutputProcessor::Draw(const DrawnToken& drawn, const StepResults& results,
                           std::vector<OutputFeedback>* feedback) {
  RequestOutput& request = *drawn.request;
  OutputText& text = request.texts[drawn.index];
  if (text.stop() >= 0) return;

  OutputDelta delta{
      .index = drawn.index, .first_token_index = text.accounted(), .time = results.time};
  text.Push(results.output.sampled[drawn.result], drawn.stop_token, drawn.last, request.logprobs,
            &delta);
  request.usage.completion_tokens += std::ssize(delta.token_ids);
  if (!delta.text.empty() || !delta.token_ids.empty()) request.sink->OnDelta(delta);

  if (request.holds_back || text.stop() >= 0) {
    feedback->push_back({.request = request.id,
                         .index = drawn.index,
                         .processed = text.processed(),
                         .accounted = text.accounted(),
                         .stopped = text.stop() >= 0});
  }
}

void OutputProcessor::Finish(FinishedSequence& sequence) {
  RequestOutput& request = *sequence.request;
  OutputFinished finished{.index = sequence.index,
                          .reason = sequence.reason,
                          .state = std::move(sequence.state),
                          .timings = sequence.timings};
  // A stop string lies before whatever ended the sequence on the engine thread meanwhile.
  const int stop = request.texts[sequence.index].stop();
  if (stop >= 0) {
    finished.reason = FinishReason::kStop;
    finished.stop_string = request.stops->stop(stop);
  } else if (sequence.stop_token_id >= 0) {
    finished.stop_token_id = sequence.stop_token_id;
  }
  request.sink->OnFinished(finished);
  finished.state = nullptr;
  request.finished.push_back(std::move(finished));
}

void OutputProcessor::End(EndedRequest& ended, SteadyTime time) {
  RequestOutput& request = *ended.request;
  if (ended.moved != nullptr) {
    for (size_t i = 0; i < request.texts.size(); ++i) {
      request.texts[i].Put(request.logprobs, &ended.moved->outputs[i]);
    }
    ended.moved->cached_tokens = request.usage.cached_tokens;
    request.sink->OnMoved(std::move(ended.moved));
  }
  request.sink->OnDone(ended.status, request.usage);
  if (observer_ == nullptr) return;
  observer_->OnRequestFinished({.name = std::move(request.name),
                                .status = std::move(ended.status),
                                .usage = request.usage,
                                .sent_before = request.sent_before,
                                .end_to_end = time - request.arrival,
                                .outputs = std::move(request.finished)});
}

}  // namespace liger
