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
 * be over. [fast]: no lock, no allocation, at most one system call (and a write of the kernel's table where the host lacks
 * KVM_SIGNAL_MSI); calls back only into `signal` and `raise_gsi`. [control]: may wait for deliveries under way and for a
 * write of the table (milliseconds). Not from inside a callback: -EDEADLK. */

#ifndef MSIROUTE_H
#define MSIROUTE_H

#include <stddef.h>
#include <stdint.h>

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

/**
 * No requester: who sends a message does not matter.
 */
#define MSIROUTE_NO_REQUESTER UINT32_MAX

/**
 * No GSI, in msi_vector_info.
 */
#define MSIROUTE_ANY_GSI UINT32_MAX

/**
 * Do without KVM_SIGNAL_MSI even if there is one: messages go through routes (old hosts, tests).
 */
#define MSIROUTE_CACHE_NO_DIRECT (1 << 0)

/**
 * The embedded model of KVM's routing in place of a VM, for tests and machines without /dev/kvm. It has one thread, the
 * kernel's part in irqfds. What reaches the guest is handed to `signal` of `ops`; the other functions must be NULL.
 */
#define MSIROUTE_CACHE_MODEL (1 << 1)

/**
 * Never use membarrier(2), for a seccomp filter that refuses it: deliveries then cost a memory fence more. Process-wide:
 * at its first cache, -EBUSY later.
 */
#define MSIROUTE_CACHE_FENCES (1 << 2)

/**
 * The host takes whole messages, and the cache uses that.
 */
#define MSIROUTE_HAS_DIRECT (1 << 0)

/**
 * Eventfds can be bound.
 */
#define MSIROUTE_HAS_IRQFD (1 << 1)

/**
 * Irqfds of level-triggered pins are there.
 */
#define MSIROUTE_HAS_RESAMPLE (1 << 2)

/**
 * The host wants to know who sends a message (ITS device ID).
 */
#define MSIROUTE_HAS_REQUESTER (1 << 3)

/**
 * KVM_X2APIC_API_USE_32BIT_IDS is on: bits 63:40 of an address are destination bits 31:8.
 */
#define MSIROUTE_X2APIC_IDS (1 << 0)

/**
 * The guest was offered KVM_FEATURE_MSI_EXT_DEST_ID: address bits 11:5 are destination bits 14:8. Needs
 * MSIROUTE_X2APIC_IDS.
 */
#define MSIROUTE_EXT_DEST_ID (1 << 1)

/**
 * Something failed that no caller can be told.
 */
#define MSIROUTE_LOG_ERROR 1

/**
 * Worth knowing.
 */
#define MSIROUTE_LOG_INFO 2

/**
 * The VMM keeps the registers: always enabled; vectors start unmasked, without a message.
 */
#define MSIROUTE_KIND_PLAIN 0

/**
 * An MSI-X capability: starts disabled, vectors masked, without a message.
 */
#define MSIROUTE_KIND_MSIX 1

/**
 * Message Control's enable bit; always set on MSIROUTE_KIND_PLAIN.
 */
#define MSIROUTE_ENABLED (1 << 0)

/**
 * Message Control's function mask.
 */
#define MSIROUTE_FUNCTION_MASKED (1 << 1)

/**
 * The function may master the bus.
 */
#define MSIROUTE_BUS_MASTER (1 << 2)

/**
 * The eventfd must be served by the kernel (posted interrupts); without a relay every one is.
 */
#define MSIROUTE_EVENTFD_KERNEL_ONLY (1 << 0)

/**
 * Not duplicated: it must stay open, and be this file, until it is unbound.
 */
#define MSIROUTE_EVENTFD_BORROWED (1 << 1)

/**
 * It has a message.
 */
#define MSIROUTE_VECTOR_SET (1 << 0)

/**
 * Its own mask bit.
 */
#define MSIROUTE_VECTOR_MASKED (1 << 1)

/**
 * The guest wants it: set, enabled, unmasked both ways.
 */
#define MSIROUTE_VECTOR_LIVE (1 << 2)

/**
 * It has eventfds, and every one is an irqfd now.
 */
#define MSIROUTE_VECTOR_IN_KERNEL (1 << 3)

/**
 * It should send, and has an eventfd that nobody serves: events are counted, and serving is tried again.
 */
#define MSIROUTE_VECTOR_UNSERVED (1 << 4)

/**
 * The guest's interrupt controller took it; that the interrupt was already requested counts as taken.
 */
#define MSIROUTE_SENT 0

/**
 * The vector could not send (masked, bus master off, no message, or being changed at this moment): kept, and sent once when
 * it can; another thread may just have done that.
 */
#define MSIROUTE_PENDING 1

/**
 * The message's destination does not exist or is switched off: it is gone, as on hardware.
 */
#define MSIROUTE_REFUSED 2

/**
 * The capability is disabled: nothing was sent or kept; raise INTx if there is one.
 */
#define MSIROUTE_DISABLED 3

/**
 * The vectors of one PCI function, HPET, IOAPIC or the like: 1 to 2048.
 */
struct msi_device;

/**
 * A VM's routes; one a VM, several in a process.
 */
struct msi_route_cache;

/**
 * How messages leave, for a VMM whose interrupt controller or system calls are its own. NULL: "has none".
 *
 * Called from any thread until msi_route_cache_free has returned. A negative errno is an error. `signal` and `raise_gsi`
 * run inside msi_deliver, with no lock of the library held: they may call msi_deliver (a message that needs a route must have
 * it already, else -EDEADLK), they must not wait for a thread that masks, and control functions say -EDEADLK to them, as they do to the others, which run with locks held.
 */
struct msi_route_cache_ops {
  /**
   * sizeof of this struct.
   */
  uint32_t size;
  /**
   * 0.
   */
  uint32_t flags;
  /**
   * Injects a message (KVM_SIGNAL_MSI). Above 0: accepted; 0: not accepted.
   */
  int (*signal)(void *opaque, uint32_t requester, uint64_t address, uint32_t data);
  /**
   * Replaces the whole table (KVM_SET_GSI_ROUTING), fixed routes included.
   */
  int (*set_routes)(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n);
  /**
   * From now on a signal of the eventfd raises the GSI (KVM_IRQFD).
   */
  int (*bind_irqfd)(void *opaque, int fd, uint32_t gsi);
  /**
   * From now on the eventfd counts.
   */
  int (*unbind_irqfd)(void *opaque, int fd, uint32_t gsi);
  /**
   * Injects what a GSI is routed to (KVM_IRQ_LINE_STATUS), where there is no `signal`. Above 0: accepted; 0: not.
   */
  int (*raise_gsi)(void *opaque, uint32_t gsi);
};

/**
 * What a cache is made of.
 */
struct msi_route_cache_config {
  /**
   * sizeof of this struct.
   */
  uint32_t size;
  /**
   * MSIROUTE_CACHE_...
   */
  uint32_t flags;
  /**
   * KVM's VM; duplicated. -1 with `ops` or the model.
   */
  int32_t vm_fd;
  /**
   * /dev/kvm, used during the call alone; -1: it is opened for the call.
   */
  int32_t kvm_fd;
  /**
   * The lowest GSI that the library may take; 0: 24, above an IOAPIC's pins.
   */
  uint32_t first_gsi;
  /**
   * Entries in the kernel's table, and one above the highest GSI. 0: what the kernel says; 4096 with `ops`.
   */
  uint32_t max_routes;
  /**
   * The table is copied. NULL: KVM itself.
   */
  const struct msi_route_cache_ops *ops;
  /**
   * For `ops`; valid until msi_route_cache_free() has returned.
   */
  void *opaque;
};

/**
 * Numbers that tell how a cache fares. Counters run from its making.
 */
struct msi_route_cache_stats {
  /**
   * sizeof of this struct.
   */
  uint32_t size;
  /**
   * 0.
   */
  uint32_t flags;
  /**
   * Writes of the kernel's table that succeeded.
   */
  uint64_t table_writes;
  /**
   * Writes that the kernel refused.
   */
  uint64_t table_write_errors;
  /**
   * Routes of the library's that are in the table now, idle ones included, the VMM's own not.
   */
  uint64_t routes;
  /**
   * Of these, the ones in use by irqfds.
   */
  uint64_t routes_pinned;
  /**
   * Idle routes that made way for others.
   */
  uint64_t evictions;
  /**
   * KVM_IRQFD calls that bound an eventfd.
   */
  uint64_t irqfd_binds;
  /**
   * KVM_IRQFD calls that unbound one.
   */
  uint64_t irqfd_unbinds;
  /**
   * Vectors now that should be served and have an eventfd that nobody serves.
   */
  uint64_t unserved_vectors;
};

/**
 * What a device is.
 */
struct msi_device_config {
  /**
   * sizeof of this struct.
   */
  uint32_t size;
  /**
   * 0.
   */
  uint32_t flags;
  /**
   * MSIROUTE_KIND_...
   */
  uint32_t kind;
  /**
   * 1 to 2048.
   */
  uint32_t vectors;
  /**
   * Bus/device/function or ITS device ID, or MSIROUTE_NO_REQUESTER.
   */
  uint32_t requester;
  /**
   * 0.
   */
  uint32_t pad;
  /**
   * For logs; copied. May be NULL.
   */
  const char *name;
};

/**
 * What is true of a vector now.
 */
struct msi_vector_info {
  /**
   * sizeof of this struct.
   */
  uint32_t size;
  /**
   * MSIROUTE_VECTOR_...
   */
  uint32_t flags;
  /**
   * The message, as it was set.
   */
  uint64_t address;
  /**
   * The message, as it was set.
   */
  uint32_t data;
  /**
   * How many eventfds it has.
   */
  uint32_t eventfds;
  /**
   * Where its route is now, for dumps; MSIROUTE_ANY_GSI: it has none.
   */
  uint32_t gsi;
  /**
   * Why an eventfd could not be bound or unbound, a negative errno; 0: it could.
   */
  int32_t error;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes a VM's cache. Before the VM has an interrupt controller is fine: nothing is written until something needs a route.
 * Registers membarrier(2): call it before a seccomp filter that forbids the registration. [control]
 *
 * \param cache  receives the handle, NULL on failure; ends with msi_route_cache_free().
 * \return 0; -EBADF (a descriptor is closed); -EINVAL (vm_fd is no VM, kvm_fd is not /dev/kvm, bad config); -E2BIG; what
 *         opening /dev/kvm says; -EMFILE; -ENOTSUP (messages can be sent neither directly nor by routes); -EBUSY (fences
 *         asked for too late).
 */
int msi_route_cache_new(const struct msi_route_cache_config *config,
                        struct msi_route_cache **cache);

/**
 * Unbinds everything and closes the library's descriptor of the VM. Devices still held answer -ESHUTDOWN until they are
 * freed. NULL is nothing. Not from inside a callback. [control]
 */
void msi_route_cache_free(struct msi_route_cache *cache);

/**
 * What works here: MSIROUTE_HAS_...; 0 for a bad handle.
 *
 * \param max_routes  receives the size of the kernel's table as this cache uses it; may be NULL.
 */
uint32_t msi_route_cache_features(const struct msi_route_cache *cache, uint32_t *max_routes);

/**
 * Says how the guest addresses APICs: MSIROUTE_X2APIC_IDS, MSIROUTE_EXT_DEST_ID. May come late: live messages are encoded
 * anew, and one that is none any more holds what is raised. [control]
 *
 * \return 0; -EINVAL (unknown flags, EXT_DEST_ID alone, or a message that is none any more); what the kernel says to the
 *         new routes. The addressing stands but for bad flags.
 */
int msi_route_cache_set_addressing(struct msi_route_cache *cache,
                                   uint32_t flags);

/**
 * Replaces the VMM's own routes, the kernel's default pins included (n = 0: none). Written at once, and with every later
 * write of the table; never evicted or renumbered. [control]
 *
 * \return 0; -EINVAL (a GSI beyond the table, a kind the kernel does not know); -EBUSY (a GSI that an irqfd of the
 *         library's uses: first_gsi belongs above the VMM's own); -ENOSPC. On failure nothing is changed.
 */
int msi_route_cache_set_fixed(struct msi_route_cache *cache,
                              const struct kvm_irq_routing_entry *entries,
                              size_t n);

/**
 * From now on this thread's changes are staged until its matching commit: eventfds are given to the kernel, or follow their
 * vector's new message, there, all with one write of the table. Other threads' changes are live when their calls return, as ever. Masking, and whatever else
 * stops interrupts, is never staged. Nests.
 *
 * \return 0; -EINVAL.
 */
int msi_route_cache_begin(struct msi_route_cache *cache);

/**
 * Makes this thread's staged changes live. Also tries again to serve vectors that could not be served; without a begin
 * that is all it does. [control]
 *
 * \return 0; the first error met of this thread's changes, without a begin of any: -ENOSPC (no route is free), what the kernel says. Vectors keep what was written to them; those
 *         that are not served say so in msi_vector_info(), count their events, and are tried again.
 */
int msi_route_cache_commit(struct msi_route_cache *cache);

/**
 * Fills in the numbers of this moment.
 *
 * \param stats  its size is set (MSIROUTE_STATS_INIT).
 * \return 0; -EINVAL.
 */
int msi_route_cache_stats(const struct msi_route_cache *cache, struct msi_route_cache_stats *stats);

/**
 * What this thread's last failed call says, in words; "" if none failed. Valid until its next failure. The wording may
 * change.
 */
const char *msi_route_cache_last_error(void);

/**
 * The library's version: "major.minor.patch".
 */
const char *msi_route_cache_version(void);

/**
 * Raises a vector. [fast]
 *
 * \return MSIROUTE_SENT, MSIROUTE_PENDING, MSIROUTE_REFUSED or MSIROUTE_DISABLED; -EINVAL (bad handle, no such vector, or
 *         the VM has no interrupt controller yet); -ENODEV (closed); -ESHUTDOWN (the cache is gone); -EDEADLK (from inside a
 *         callback, and the message has no route yet); what the kernel says. After an error nothing was sent or kept.
 */
int msi_deliver(struct msi_device *dev,
                uint32_t index);

/**
 * Sends a message that belongs to no vector. [fast]
 *
 * \param requester           who sends it, or MSIROUTE_NO_REQUESTER.
 * \param already_translated  1: no interrupt remapping applies to it. (There is none yet.)
 * \return MSIROUTE_SENT; MSIROUTE_REFUSED; -EINVAL (bad handle, not a message, or the VM has no interrupt controller yet);
 *         -EDEADLK as msi_deliver(); what the kernel says.
 */
int msi_deliver_message(struct msi_route_cache *cache,
                        uint32_t requester,
                        uint64_t address,
                        uint32_t data,
                        int already_translated);

/**
 * Makes a device. [control]
 *
 * \param dev  receives the handle, NULL on failure; ends with msi_device_free().
 * \return 0; -EINVAL (bad config: no such kind, 0 or more than 2048 vectors); -E2BIG.
 */
int msi_device_new(struct msi_route_cache *cache,
                   const struct msi_device_config *config,
                   struct msi_device **dev);

/**
 * One more owner of the handle (an I/O thread, a timer): it stays valid until each has called msi_device_free().
 *
 * \return dev; NULL for a bad handle.
 */
struct msi_device *msi_device_ref(struct msi_device *dev);

/**
 * Unplugs the device: all its eventfds are unbound and let go, and when this returns no message of its is sent any more.
 * From now on every call on it says -ENODEV. Again is nothing. [control]
 *
 * \return 0; -EINVAL; what the kernel says to an unbind (the rest is done all the same).
 */
int msi_device_close(struct msi_device *dev);

/**
 * Drops one owner's reference; the last one closes the device. NULL is nothing. Not from inside a callback. [control]
 */
void msi_device_free(struct msi_device *dev);

/**
 * Function-level reset: disabled and masked as a new device, no messages, nothing pending. Bound eventfds stay with their
 * vectors; what they have counted is thrown away. The bus-master bit stays: it is the VMM's to change. [control]
 *
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what the kernel says to an unbind (the rest is done all the same).
 */
int msi_device_reset(struct msi_device *dev);

/**
 * The function has another requester ID: a guest renumbered its bus. [control]
 *
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what serving the vectors says (the requester stands).
 */
int msi_device_set_requester(struct msi_device *dev, uint32_t requester);

/**
 * Whether the function may master the bus (Command register, bit 2); a new device may. While it may not, it sends nothing
 * and keeps everything pending. [control]
 *
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what serving the vectors says (the bit stands).
 */
int msi_device_set_bus_master(struct msi_device *dev,
                              int on);

/**
 * Message Control as the guest wrote it, for a VMM that keeps the register: MSIROUTE_ENABLED and MSIROUTE_FUNCTION_MASKED.
 * Whatever number of vectors becomes live, the kernel's table is written at most once. [control]
 *
 * \return 0; -EINVAL (unknown flags, or MSIROUTE_KIND_PLAIN); -ENODEV; -ESHUTDOWN; what serving the vectors says (the bits stand).
 */
int msi_device_set_control(struct msi_device *dev,
                           uint32_t flags);

/**
 * MSIROUTE_ENABLED, MSIROUTE_FUNCTION_MASKED, MSIROUTE_BUS_MASTER; 0 for a bad handle. [fast]
 */
uint32_t msi_device_state(const struct msi_device *dev);

/**
 * Sets where messages go that no caller can be told, for the whole process; NULL: nowhere, as at the start. The function
 * may be called on any thread, possibly once more after it was replaced; it must not call the library. `message` lasts for the call.
 */
void msi_route_cache_set_log(void (*log)(void *opaque, uint32_t level, const char *message),
                             void *opaque);

/**
 * Gives a vector a message: the guest's address and data. Once this returns the old one is not sent any more, and no
 * mixture of the two ever is. (In a transaction, what its eventfds send changes with the commit.) [control]
 *
 * \return 0; -EINVAL (not a message: nothing is changed, so clear the vector if the old message must go); -ENODEV;
 *         -ESHUTDOWN; -ENOSPC or what the kernel says if its eventfds cannot be served (the message stands, their events are
 *         counted, and it is tried again).
 */
int msi_vector_set(struct msi_device *dev,
                   uint32_t index,
                   uint64_t address,
                   uint32_t data);

/**
 * Takes a vector's message away: what is raised is kept pending until it has one again. [control]
 *
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what the kernel says to unbinding an eventfd.
 */
int msi_vector_clear(struct msi_device *dev, uint32_t index);

/**
 * Masks a vector: once this returns no message of it is sent. [control]
 *
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what the kernel says to unbinding an eventfd (the vector is masked, but that
 *         eventfd still interrupts: mask it again).
 */
int msi_vector_mask(struct msi_device *dev,
                    uint32_t index);

/**
 * Unmasks a vector; what was raised while it was masked is sent, once. [control]
 *
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if its eventfds cannot be served (it is unmasked,
 *         their events are counted, and it is tried again).
 */
int msi_vector_unmask(struct msi_device *dev,
                      uint32_t index);

/**
 * Its pending bit: raised, by msi_deliver() or an eventfd, and not sent yet. [control]
 *
 * \return 1 or 0; -EINVAL; -ENODEV; -ESHUTDOWN.
 */
int msi_vector_is_pending(struct msi_device *dev, uint32_t index);

/**
 * The cause is gone: nothing is pending any more, and what its eventfds have counted is taken out of them. [control]
 *
 * \return 1 if something was pending, 0 if not; -EINVAL; -ENODEV; -ESHUTDOWN.
 */
int msi_vector_clear_pending(struct msi_device *dev,
                             uint32_t index);

/**
 * From now on a signal of the eventfd raises the vector; what it has counted already counts as one. A vector may have any
 * number of eventfds (queues share it), an eventfd one vector. A blocking eventfd is fine; its flags are not touched. [control]
 *
 * \param fd     duplicated, unless MSIROUTE_EVENTFD_BORROWED.
 * \param flags  MSIROUTE_EVENTFD_...
 * \return 0; -EBADF (closed); -EINVAL (not an eventfd, a semaphore, unknown flags); -EBUSY (bound already, by whatever
 *         number); -ENOTSUP (no irqfds here); -EMFILE; -ENODEV; -ESHUTDOWN; outside a transaction -ENOSPC (no route is free)
 *         and what the kernel says. On failure it is not bound.
 */
int msi_vector_bind_eventfd(struct msi_device *dev,
                            uint32_t index,
                            int fd,
                            uint32_t flags);

/**
 * Lets an eventfd go. Once this returns no message comes by it; what it counts from then on stays in it. [control]
 *
 * \param fd  the number it was bound with, open or not; -1: all of the vector.
 * \return 0; -ENOENT (there is none); -EINVAL; -ENODEV; -ESHUTDOWN; what the kernel says (it is still bound).
 */
int msi_vector_unbind_eventfd(struct msi_device *dev,
                              uint32_t index,
                              int fd);

/**
 * Says what is true of a vector now. [control]
 *
 * \param info  its size is set (MSIROUTE_VECTOR_INFO_INIT).
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN.
 */
int msi_vector_info(struct msi_device *dev, uint32_t index, struct msi_vector_info *info);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MSIROUTE_H */
