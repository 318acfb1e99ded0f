// CUDA's atomic functions. Relaxed, as on the GPU: they order no other memory, and ThreadSanitizer knows it.
#pragma once

#include <atomic>
#include <type_traits>

#include "tests/simt/touch_memory.h"

namespace simt {

/// *address = change(*address), whole; returns the former value.
template <class T, class Change>
SIMT_UNCOUNTED T atomic_update(T* address, Change change) {
  if constexpr (counts_accesses) touch_memory(__builtin_return_address(0), address, sizeof(T), Access::atomic);
  std::atomic_ref<T> target(*address);
  T old = target.load(std::memory_order_relaxed);
  while (!target.compare_exchange_weak(old, change(old), std::memory_order_relaxed)) {
  }
  return old;
}

template <class T>
concept AtomicInteger = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <class T>
concept AtomicNumber = AtomicInteger<T> || std::is_same_v<T, float> || std::is_same_v<T, double>;

}  // namespace simt

template <simt::AtomicNumber T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T old) { return old + value; });
}
template <simt::AtomicInteger T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T old) { return old - value; });
}
template <simt::AtomicInteger T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T old) { return old < value ? value : old; });
}
template <simt::AtomicInteger T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T old) { return value < old ? value : old; });
}
template <simt::AtomicInteger T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T old) { return old | value; });
}
template <simt::AtomicInteger T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T old) { return old & value; });
}
template <simt::AtomicInteger T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return old == compare ? value : old; });
}
template <simt::AtomicNumber T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [value](T) { return value; });
}
