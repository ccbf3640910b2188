# LibTorch::cpu from the unpacked PyPI wheels (./dev setup puts them in .deps/libtorch): torch_cpu and
# c10 only. find_package(Torch) would ask for a CUDA toolkit.
set(HADAL_LIBTORCH "${CMAKE_SOURCE_DIR}/.deps/libtorch" CACHE PATH "folder with torch/ and nvidia/ of the wheels")
find_path(LibTorch_INCLUDE_DIR ATen/core/Tensor.h PATHS ${HADAL_LIBTORCH}/torch/include NO_DEFAULT_PATH)
find_library(LibTorch_CPU torch_cpu PATHS ${HADAL_LIBTORCH}/torch/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10 c10 PATHS ${HADAL_LIBTORCH}/torch/lib NO_DEFAULT_PATH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch REQUIRED_VARS LibTorch_INCLUDE_DIR LibTorch_CPU LibTorch_C10
  FAIL_MESSAGE "LibTorch is not in ${HADAL_LIBTORCH}: run ./dev setup")
if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  add_library(LibTorch::cpu INTERFACE IMPORTED)
  target_include_directories(LibTorch::cpu SYSTEM INTERFACE ${LibTorch_INCLUDE_DIR})
  target_compile_definitions(LibTorch::cpu INTERFACE AT_PER_OPERATOR_HEADERS)
  target_link_libraries(LibTorch::cpu INTERFACE ${LibTorch_CPU} ${LibTorch_C10})
  # The CUDA wheel's torch_cpu needs libcudart and libcupti at load time. It finds them itself, through
  # its own rpath ($ORIGIN/../../nvidia/cu13/lib); GNU ld wants to see them at link time too.
  target_link_options(LibTorch::cpu INTERFACE -Wl,-rpath,${HADAL_LIBTORCH}/torch/lib
                                              -Wl,-rpath-link,${HADAL_LIBTORCH}/nvidia/cu13/lib)
endif()
