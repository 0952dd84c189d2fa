/* A libcuda.so.1 whose functions are found by a resolver in Python. */
#include <stdint.h>

typedef void *(*resolver_t)(const char *);
static resolver_t resolver;

void set_resolver(resolver_t r) { resolver = r; }

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  *function = resolver ? resolver(name) : 0;
  if (status) *status = *function ? 0 : 1;
  return *function ? 0 : 500;
}

int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}

int cuInit(unsigned flags) {
  int (*init)(unsigned) = resolver ? resolver("cuInit") : 0;
  return init ? init(flags) : 100;
}

int cuDriverGetVersion(int *version) {
  *version = 13000;
  return 0;
}
