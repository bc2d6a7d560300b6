# Everything comes from Debian 12's packages; scripts/install_deps.sh installs them.

find_package(Threads REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(absl REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(OpenSSL REQUIRED)
pkg_check_modules(HIREDIS REQUIRED IMPORTED_TARGET hiredis)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)

if(LIGER_BUILD_SERVICE)
  # Protobuf in module mode, and before gRPC: its CMake config is not packaged.
  find_package(Protobuf REQUIRED)
  find_package(gRPC CONFIG REQUIRED)
  find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
  find_package(spdlog REQUIRED)
  find_package(CLI11 REQUIRED)
  find_package(prometheus-cpp REQUIRED)
  pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)
endif()

if(LIGER_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(LIGER_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()
