// Which request gets slots next.

#ifndef LIGER_SCHEDULER_WAITING_LIST_H_
#define LIGER_SCHEDULER_WAITING_LIST_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "scheduler/request.h"
#include "scheduler/sequence.h"

namespace liger {

// One of those for whom tokens are counted.
struct Tenant {
  std::string name;
  double weight = 1;
  double served = 0;  // tokens over weight, as far as they set it apart from the others
  int requests = 0;   // waiting or running
};

// Who has waited for `patience` comes first, the longest wait before others: nobody starves. Then
// strictly by priority, larger first. Within a priority the tenant that was served least for its
// weight, and of one tenant's requests the one that is due first: at its deadline, or when its
// patience ends. So equal requests come in the order in which they began to wait. A tenant that
// comes back begins with the least served that is there: time away is not saved up.
//
// Not thread-safe; reads no clock.
class WaitingList {
 public:
  // `weights` by tenant, above 0; others have 1.
  WaitingList(SteadyDuration patience, absl::flat_hash_map<std::string, double> weights);

  // A request is of its tenant from Join to Leave.
  Tenant* Join(const std::string& name);
  void Leave(Tenant* tenant);
  static void Charge(Tenant* tenant, int64_t tokens) {
    tenant->served += static_cast<double>(tokens) / tenant->weight;
  }

  void Add(std::unique_ptr<ScheduledRequest> request, SteadyTime now);
  // Lets it wait again where it waited before.
  void AddBack(std::unique_ptr<ScheduledRequest> request);
  // Null where nobody waits.
  ScheduledRequest* Next(SteadyTime now) const;
  // Null where it does not wait.
  std::unique_ptr<ScheduledRequest> Remove(ScheduledRequest* request);
  // Whether its patience is over.
  bool Starves(const ScheduledRequest& request, SteadyTime now) const {
    return now - request.waiting_since >= patience_;
  }

 private:
  using Due = std::tuple<SteadyTime, uint64_t, ScheduledRequest*>;  // of equal ones in order
  using Class = std::map<Tenant*, std::set<Due>>;

  const SteadyDuration patience_;
  const absl::flat_hash_map<std::string, double> weights_;
  std::map<std::string, Tenant> tenants_;
  absl::flat_hash_map<ScheduledRequest*, std::unique_ptr<ScheduledRequest>> requests_;
  std::map<int32_t, Class, std::greater<>> classes_;  // by priority
  std::set<Due> by_wait_;                             // by the time at which patience ends
  uint64_t added_ = 0;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_WAITING_LIST_H_
