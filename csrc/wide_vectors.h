// Functions compiled several times, for vector units of several widths; the processor's own is taken at run time.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MEGASBP_WIDE_VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MEGASBP_WIDE_VECTORS
#endif
