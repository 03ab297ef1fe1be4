/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libmsiroute: message-signalled interrupts for a KVM virtual machine monitor.
 * Generated from src/capi by "cargo run -p xtask -- header"; do not edit.
 *
 * Results: 0 or more is good, a negative errno is not, and msi_route_cache_last_error() has it in words. errno itself is
 * left alone. What a guest can cause (no room in the kernel's table, a refusal) never undoes what the guest wrote.
 *
 * Ownership: descriptors stay the caller's (duplicated, close-on-exec, unless lent by flag); buffers are read or filled
 * before the call returns.
 *
 * Threads: every function may be called from any thread at any time, but that a _free needs the last call on that handle to
 * be over. [fast]: no lock, no allocation (but at a thread's first call), at most one system call (and a write of the
 * kernel's table where the host lacks KVM_SIGNAL_MSI); calls back only into `signal`, `raise_gsi` and `gsi_of`. [control]:
 * may wait for deliveries under way and for a write of the table (milliseconds), may call `translate`, and calls `changed`
 * last. Not from inside the functions of msi_route_cache_ops, nor from inside `translate`: -EDEADLK. No function is a
 * cancellation point: a pthread_cancel() waits until the call has returned. A thread must not be cancellable asynchronously
 * in here.
 *
 * Memory: functions that make something or take something in say -ENOMEM where there is none, and have changed nothing. The
 * others need a little for each vector that they change; if malloc has not even that, the process is aborted.
 *
 * Processes: handles are of the process that made them. A child that fork() made may do nothing but exec; [control]
 * functions say -EIO there once the parent has made a cache, the kernel says so to msi_deliver(), and the parent is
 * unharmed. */
/* includes */
#define MSIROUTE_VERSION_MAJOR 0
#define MSIROUTE_VERSION_MINOR 1
#define MSIROUTE_VERSION_PATCH 0

/* Structs begin with their size, so that they can grow: a shorter one is filled up with zeros, a longer one must have
 * zeros where this library knows nothing (-E2BIG); unknown flags are -EINVAL. These set what must not be zero. */
#define MSIROUTE_CACHE_CONFIG_INIT { .size = sizeof(struct msi_route_cache_config), .vm_fd = -1, .kvm_fd = -1 }
#define MSIROUTE_CACHE_OPS_INIT { .size = sizeof(struct msi_route_cache_ops) }
#define MSIROUTE_DEVICE_CONFIG_INIT { .size = sizeof(struct msi_device_config), .requester = MSIROUTE_NO_REQUESTER }
#define MSIROUTE_STATS_INIT { .size = sizeof(struct msi_route_cache_stats) }
#define MSIROUTE_VECTOR_INFO_INIT { .size = sizeof(struct msi_vector_info) }

struct kvm_irq_routing_entry; /* <linux/kvm.h> */
