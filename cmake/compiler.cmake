# Flags of our own code. Generated and third-party headers are SYSTEM, so that -Werror applies to us alone.

add_library(liger_flags INTERFACE)
target_include_directories(liger_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(liger_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wno-missing-field-initializers>
  # GCC 12 warns of overlapping copies in its own std::string (GCC bug 105651).
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>
  # A fused multiply-add only where the code asks for one: the bits must not depend on the compiler.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)

if(CMAKE_UNITY_BUILD)
  # GCC takes the files for headers there, whose classes must not hold types of their own.
  target_compile_options(liger_flags INTERFACE
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
endif()

if(LIGER_SANITIZE)
  add_compile_options(-fsanitize=${LIGER_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${LIGER_SANITIZE})
  if(LIGER_SANITIZE MATCHES address)
    add_library(liger_sanitizer_options OBJECT ${CMAKE_SOURCE_DIR}/tests/sanitizer_options.cc)
    target_sources(liger_flags INTERFACE $<TARGET_OBJECTS:liger_sanitizer_options>)
  endif()
endif()
if(LIGER_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
