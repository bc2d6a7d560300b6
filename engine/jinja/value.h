// What expressions of a template evaluate to: Python's values, as far as templates meet them.

#ifndef LIGER_ENGINE_JINJA_VALUE_H_
#define LIGER_ENGINE_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/jinja/budget.h"
#include "engine/jinja/text.h"

namespace liger::jinja {

// Lists and dicts hold no more levels of others than this, so that recursion over values is
// bounded.
inline constexpr int kMaxValueDepth = 64;

struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Function;

// A value is cheap to copy. All but namespaces and loops are immutable, as in Jinja's
// ImmutableSandboxedEnvironment. Values do not outlive the template they come from.
class Value {
 public:
  struct Undefined {
    absl::string_view name;  // of what is missing
  };
  struct None {};

  Value() : data_(Undefined{}) {}
  static Value MakeUndefined(absl::string_view name) { return Value(Undefined{name}); }
  static Value MakeNone() { return Value(None{}); }
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(TextView text) : Value(Text(text)) {}
  explicit Value(std::shared_ptr<const Function> function) : data_(std::move(function)) {}
  explicit Value(std::shared_ptr<const Loop> loop) : data_(std::move(loop)) {}
  explicit Value(Namespace* value) : data_(value) {}
  // Lists, tuples, generators and dicts. INVALID_ARGUMENT beyond kMaxValueDepth.
  static absl::StatusOr<Value> Make(List list);
  static absl::StatusOr<Value> Make(Dict dict);

  bool IsUndefined() const { return Holds<Undefined>(); }
  bool IsNone() const { return Holds<None>(); }
  // Null, or the value where it is of that kind.
  const bool* AsBool() const { return std::get_if<bool>(&data_); }
  const int64_t* AsInt() const { return std::get_if<int64_t>(&data_); }
  const double* AsFloat() const { return std::get_if<double>(&data_); }
  const Text* AsText() const { return Pointer<Text>(); }
  const List* AsList() const { return Pointer<List>(); }  // tuples and generators too
  const Dict* AsDict() const { return Pointer<Dict>(); }
  const Loop* AsLoop() const { return Pointer<Loop>(); }
  const Function* AsFunction() const { return Pointer<Function>(); }
  Namespace* AsNamespace() const;
  absl::string_view UndefinedName() const { return std::get<Undefined>(data_).name; }

  // A bool counts as the number it is in Python.
  bool IsNumber() const {
    return AsBool() != nullptr || AsInt() != nullptr || AsFloat() != nullptr;
  }
  bool IsInteger() const { return AsBool() != nullptr || AsInt() != nullptr; }
  int64_t Integer() const { return AsBool() != nullptr ? int64_t{*AsBool()} : *AsInt(); }
  double Number() const {
    return AsFloat() != nullptr ? *AsFloat() : static_cast<double>(Integer());
  }

  bool Truthy() const;
  int Depth() const;
  // As Python names the type, for errors.
  absl::string_view TypeName() const;

 private:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                   std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                   std::shared_ptr<const Loop>, std::shared_ptr<const Function>, Namespace*>;

  explicit Value(Data data) : data_(std::move(data)) {}

  template <typename T>
  bool Holds() const {
    return std::holds_alternative<T>(data_);
  }
  template <typename T>
  const T* Pointer() const {
    const auto* held = std::get_if<std::shared_ptr<const T>>(&data_);
    return held == nullptr ? nullptr : held->get();
  }

  Data data_;
};

struct List {
  // A generator is what filters such as map give: it has no length and is always true.
  enum class Kind { kList, kTuple, kGenerator };

  Kind kind = Kind::kList;
  std::vector<Value> items;
  int depth = 1;  // set by Value::Make
};

struct Dict {
  // In the order of insertion. Keys are of any kind but list, dict and namespace.
  std::vector<std::pair<Value, Value>> entries;
  int depth = 1;  // set by Value::Make

  // Null where there is none.
  const Value* Find(TextView key) const;
  const Value* Find(absl::string_view ascii_key) const;
  // The last of equal keys stays, in the place of the first.
  void Set(Value key, Value value);
};

// What {% set ns.x = ... %} changes. Owned by the rendering, so that one may hold itself.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;

  const Value* Find(absl::string_view name) const;
  void Set(absl::string_view name, Value value);
};

// The variable `loop`.
struct Loop {
  Value items;  // a list
  size_t index = 0;
  int depth0 = 0;
};

// Python's ==. Spends a step for every pair of elements.
absl::StatusOr<bool> Equal(const Value& a, const Value& b, Budget* budget);
// Python's <. INVALID_ARGUMENT where the two have no order.
absl::StatusOr<bool> Less(const Value& a, const Value& b, Budget* budget);

// Python's str(): what {{ value }} writes.
absl::StatusOr<Text> ToText(const Value& value, Budget* budget);
// Python's repr() of a float.
std::string FloatToString(double value);

// A list of what {% for %} goes through: elements, keys of a dict, characters. INVALID_ARGUMENT for
// what is not iterable.
absl::StatusOr<Value> ToSequence(const Value& value, Budget* budget);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_VALUE_H_
