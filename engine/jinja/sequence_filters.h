// Filters over the elements of lists, dicts and strings.

#ifndef LIGER_ENGINE_JINJA_SEQUENCE_FILTERS_H_
#define LIGER_ENGINE_JINJA_SEQUENCE_FILTERS_H_

#include "absl/strings/string_view.h"
#include "engine/jinja/function.h"

namespace liger::jinja {

// Null where there is no such filter.
Filter FindSequenceFilter(absl::string_view name);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_SEQUENCE_FILTERS_H_
