#include "scheduler/waiting_list.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

namespace liger {

WaitingList::WaitingList(SteadyDuration patience, absl::flat_hash_map<std::string, double> weights)
    : patience_(patience), weights_(std::move(weights)) {}

Tenant* WaitingList::Join(const std::string& name) {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [other, tenant] : tenants_) least = std::min(least, tenant.served);
  const auto [found, added] = tenants_.try_emplace(name);
  Tenant& tenant = found->second;
  if (added) {
    tenant.name = name;
    const auto weight = weights_.find(name);
    if (weight != weights_.end()) tenant.weight = weight->second;
    tenant.served = tenants_.size() > 1 ? least : 0;
  }
  ++tenant.requests;
  return &tenant;
}

void WaitingList::Leave(Tenant* tenant) {
  if (--tenant->requests == 0) tenants_.erase(tenants_.find(tenant->name));
}

void WaitingList::Add(std::unique_ptr<ScheduledRequest> request, SteadyTime now) {
  ScheduledRequest* const r = request.get();
  r->waiting_since = now;
  r->waiting_number = ++added_;
  AddBack(std::move(request));
}

void WaitingList::AddBack(std::unique_ptr<ScheduledRequest> request) {
  ScheduledRequest* const r = request.get();
  const SteadyTime patient_until = r->waiting_since + patience_;
  r->due = r->deadline ? std::min(*r->deadline, patient_until) : patient_until;
  classes_[r->priority][r->tenant].emplace(r->due, r->waiting_number, r);
  by_wait_.emplace(patient_until, r->waiting_number, r);
  requests_.emplace(r, std::move(request));
}

ScheduledRequest* WaitingList::Next(SteadyTime now) const {
  if (by_wait_.empty()) return nullptr;
  const auto& [patient_until, number, longest] = *by_wait_.begin();
  if (patient_until <= now) return longest;
  const Class& first = classes_.begin()->second;
  const auto next = std::min_element(first.begin(), first.end(), [](const auto& a, const auto& b) {
    const double served_a = a.first->served;
    const double served_b = b.first->served;
    return served_a != served_b ? served_a < served_b : *a.second.begin() < *b.second.begin();
  });
  return std::get<ScheduledRequest*>(*next->second.begin());
}

std::unique_ptr<ScheduledRequest> WaitingList::Remove(ScheduledRequest* request) {
  const auto found = requests_.find(request);
  if (found == requests_.end()) return nullptr;
  std::unique_ptr<ScheduledRequest> removed = std::move(found->second);
  requests_.erase(found);
  by_wait_.erase({request->waiting_since + patience_, request->waiting_number, request});
  const auto priority = classes_.find(request->priority);
  const auto tenant = priority->second.find(request->tenant);
  tenant->second.erase({request->due, request->waiting_number, request});
  if (tenant->second.empty()) priority->second.erase(tenant);
  if (priority->second.empty()) classes_.erase(priority);
  return removed;
}

}  // namespace liger
