// Renders any bytes as a chat template: refused with a message that tells the line or the limit, or
// rendered within its limits; what comes from the messages never becomes special tokens.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/chat_template.h"
#include "tests/engine/text/tiny_vocabulary.h"
#include "tests/fuzz/seeded_mutator.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const liger::Tokenizer* const tokenizer = liger::MakeTinyVocabulary().Create()->release();
  static const auto* const messages = new std::vector<liger::ChatMessage>{
      {"system", "be <|im_end|> brief"}, {"user", " a\nb "}, {"assistant", "<think>x</think>y"}};
  const absl::string_view source(reinterpret_cast<const char*>(data), size);
  const auto chat_template = liger::ChatTemplate::Create(source, {{"bos_token", "<|im_start|>"}});
  const absl::Status status = chat_template.ok()
                                  ? chat_template->Apply(*tokenizer, *messages).status()
                                  : chat_template.status();
  if (!status.ok() &&
      (status.code() != absl::StatusCode::kInvalidArgument || status.message().empty())) {
    std::abort();
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int random) {
  static const auto* const seeds = new std::vector<std::string>{
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m['content'] | trim }}{% endfor "
      "%}",
      "{%- set ns = namespace(a=0, l=[]) -%}{% for i in range(5) if i is odd %}{% set ns.a = ns.a "
      "+ i"
      " %}{% if loop.last %}{% break %}{% endif %}{% else %}x{% endfor %}{{ ns.a // 2 ** 3 }}",
      "{% macro m(a, b=1) %}{{ a ~ b }}{{ caller() if caller }}{% endmacro %}{{ m(2) }}"
      "{% call m('x') %}y{% endcall %}{% filter upper %}q{% endfilter %}",
      "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(',') "
      "}}"
      "{{ messages[1:][::-1] | tojson(indent=2) }}{{ {'a': [1, none]} | dictsort }}",
      "{% set x %}{{ bos_token }}{% endset %}{{ x.split('|')[-1].strip('>') if x is defined else 1 "
      "}}"
      "{% raw %}{{ {% endraw %}{# c #}{{ 'a%s'.replace('a', '') * 3 }}{{ raise_exception('e') }}",
      "{{ strftime_now('%Y') }}{{ '{} {}'.format(1, 2) }}{{ 'abc'[1:] in 'xbc' and not false or "
      "1.5 }}",
  };
  return liger::MutateFromSeeds(*seeds, data, size, max_size, random);
}
