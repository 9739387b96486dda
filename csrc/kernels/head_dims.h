// Head dimensions that have kernels; others are left to torch.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace megasbp::kernels {

constexpr int64_t kHeadDims[] = {16, 32, 64, 96, 128};

// Calls use(std::integral_constant<int, head_dim>()), so that loops over a head have a length known to the compiler.
template <typename Use>
void with_head_dim(int64_t head_dim, const Use &use) {
  switch (head_dim) {
    case 16:
      return use(std::integral_constant<int, 16>());
    case 32:
      return use(std::integral_constant<int, 32>());
    case 64:
      return use(std::integral_constant<int, 64>());
    case 96:
      return use(std::integral_constant<int, 96>());
    case 128:
      return use(std::integral_constant<int, 128>());
    default:
      throw std::invalid_argument("head_dim " + std::to_string(head_dim) + " has no kernel");
  }
}

}  // namespace megasbp::kernels
