// Read by LeakSanitizer in every program of the asan-ubsan preset, whoever starts it.

// c-ares, which gRPC resolves names with, keeps some bytes to the end of the process.
extern "C" const char* __lsan_default_suppressions() { return "leak:libcares\n"; }
extern "C" const char* __lsan_default_options() { return "print_suppressions=0"; }
