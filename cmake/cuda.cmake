# The CUDA toolkit.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
endif()
enable_language(CUDA)
# CMake 3.25 does not know how nvcc is told of C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
find_package(CUDAToolkit REQUIRED)
string(APPEND CMAKE_CUDA_FLAGS
  " --expt-relaxed-constexpr -lineinfo -Xcompiler=-Wall,-Wextra -Werror=all-warnings")
