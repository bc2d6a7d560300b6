// From what a caller asks to what the engine thread runs.

#ifndef LIGER_SCHEDULER_PREPARE_REQUEST_H_
#define LIGER_SCHEDULER_PREPARE_REQUEST_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"
#include "scheduler/request.h"
#include "scheduler/request_queue.h"
#include "scheduler/sequence.h"

namespace liger {

// Checks the request and allocates everything it will use: samplers, the stop strings' automaton.
// Runs on the caller's thread. `tokenizer` may be null. INVALID_ARGUMENT names the field and its
// limit.
absl::StatusOr<std::unique_ptr<ScheduledRequest>> PrepareRequest(QueueTicket ticket,
                                                                 Request request, int vocab_size,
                                                                 int total_slots,
                                                                 const Tokenizer* tokenizer);

}  // namespace liger

#endif  // LIGER_SCHEDULER_PREPARE_REQUEST_H_
