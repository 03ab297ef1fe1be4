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
 * Any GSI, for msi_route_cache_add_route(); no GSI, in msi_vector_info.
 */
#define MSIROUTE_ANY_GSI UINT32_MAX

/**
 * No tag: an invalidation of all alone concerns the translation.
 */
#define MSIROUTE_NO_TAG UINT64_MAX

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
 * Start as after msi_route_cache_pause() (an incoming migration): msi_route_cache_resume() ends it.
 */
#define MSIROUTE_CACHE_PAUSED (1 << 3)

/**
 * The library may start threads, up to seven and for some milliseconds, to unbind many eventfds at once (function
 * mask, disable, reset, unplug, pause): one after the other each takes up to 0.1 ms of waiting in the kernel. They
 * handle no signals.
 */
#define MSIROUTE_CACHE_HELPER_THREADS (1 << 4)

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
 * Only irqfds use this route: it need not be in the kernel's table while there is none.
 */
#define MSIROUTE_ROUTE_IRQFD_ONLY (1 << 0)

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
 * An MSI capability: starts disabled. Its vectors have one message, which differs in the low bits of the data.
 */
#define MSIROUTE_KIND_MSI 2

/**
 * As MSIROUTE_KIND_PLAIN, but vector i owns the GSI first_pin + i, and is in the kernel's table while it has a
 * message: an IOAPIC in user space (split irqchip), of which the kernel reads there which pins are level-triggered, to
 * tell of their EOIs.
 */
#define MSIROUTE_KIND_PINS 3

/**
 * The MSI capability has a 64-bit address.
 */
#define MSIROUTE_DEVICE_MSI_64 (1 << 0)

/**
 * The MSI capability has mask and pending registers.
 */
#define MSIROUTE_DEVICE_MSI_MASK (1 << 1)

/**
 * A message whose data is 0 is none (device assignment's old way to switch a vector off).
 */
#define MSIROUTE_DEVICE_DATA0_OFF (1 << 2)

/**
 * Its messages do not go through the vIOMMU (see msi_route_cache_set_remap()): they are the vIOMMU's own, or what the
 * VMM has translated itself.
 */
#define MSIROUTE_DEVICE_NO_REMAP (1 << 3)

/**
 * The capability was enabled or disabled: msi_device_state() says which.
 */
#define MSIROUTE_CHANGED_ENABLE (1 << 0)

/**
 * Of vectors `first` to `first + n - 1`, some have become live or BLOCKED, or are so no more, or are live with another
 * message: msi_vector_info() says what is true now.
 */
#define MSIROUTE_CHANGED_VECTORS (1 << 1)

/**
 * Message Control's enable bit; always set where there is none.
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
 * The eventfd must be served by the kernel (posted interrupts), never by the relay; without a relay every one is.
 */
#define MSIROUTE_EVENTFD_KERNEL_ONLY (1 << 0)

/**
 * Not duplicated: it must stay open, and be this file, until it is unbound.
 */
#define MSIROUTE_EVENTFD_BORROWED (1 << 1)

/**
 * The relay alone serves it, if it is on; it takes no route.
 */
#define MSIROUTE_EVENTFD_RELAY_ONLY (1 << 3)

/**
 * The VMM, told by `changed` that the vector is not live, keeps the source from signalling (vhost, VFIO): masking the
 * vector or the function does not unbind the eventfd then, which is dear. What the source holds back meanwhile is the
 * VMM's to show in the pending bit, by msi_deliver().
 */
#define MSIROUTE_EVENTFD_MASKED_AT_SOURCE (1 << 2)

/**
 * It has a message.
 */
#define MSIROUTE_VECTOR_SET (1 << 0)

/**
 * Its own mask bit.
 */
#define MSIROUTE_VECTOR_MASKED (1 << 1)

/**
 * The guest wants it: set, enabled, unmasked both ways; and the vIOMMU, if there is one, lets it.
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
 * It has eventfds, and the relay serves them now, or some of them.
 */
#define MSIROUTE_VECTOR_RELAYED (1 << 6)

/**
 * The vIOMMU refuses its message: it holds what is raised until a later translation allows it. A vector that could not
 * send anyway (masked, disabled) is not asked about.
 */
#define MSIROUTE_VECTOR_BLOCKED (1 << 5)

/**
 * The guest's interrupt controller took it; that the interrupt was already requested counts as taken.
 */
#define MSIROUTE_SENT 0

/**
 * The vector could not send (masked, bus master off, paused, no message, or being changed at this moment): kept, and
 * sent once when it can; another thread may just have done that.
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
 * The vIOMMU refuses the message, and that alone keeps it from being sent. Of a vector it is kept, and sent once when
 * a later translation allows it. Logging the fault is the caller's.
 */
#define MSIROUTE_BLOCKED 4

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
 * Called from any thread until msi_route_cache_free() has returned. A negative errno is an error. `signal` and
 * `raise_gsi` run inside msi_deliver(), with no lock of the library held: they may call msi_deliver() (a message that
 * needs a route must have it already, else -EDEADLK), they must not wait for a thread that masks, and control
 * functions say -EDEADLK to them, as they do to the others, which run with locks held.
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
   * From now on a signal of the eventfd raises the GSI (KVM_IRQFD). `resamplefd` is -1, or the GSI is level-triggered: it
   * stays raised until the guest ends the interrupt, and `resamplefd` is to be signalled then.
   */
  int (*bind_irqfd)(void *opaque, int fd, int resamplefd, uint32_t gsi);
  /**
   * From now on the eventfd counts.
   */
  int (*unbind_irqfd)(void *opaque, int fd, uint32_t gsi);
  /**
   * Injects what a GSI is routed to (KVM_IRQ_LINE_STATUS), where there is no `signal`. Above 0: accepted; 0: not.
   */
  int (*raise_gsi)(void *opaque, uint32_t gsi);
  /**
   * The GSI that a message is, always the same, for an interrupt controller without a table (GICv2m); then there is no
   * `set_routes`, and which messages are any is its to say: a negative errno is none. Called with locks held, and inside
   * msi_deliver() where there is no `signal`.
   */
  int (*gsi_of)(void *opaque, uint64_t address, uint32_t data);
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
   * Vectors that the relay serves now.
   */
  uint64_t relayed_vectors;
  /**
   * Messages that the relay has sent.
   */
  uint64_t relayed_messages;
  /**
   * Vectors that the relay has given to the kernel.
   */
  uint64_t promotions;
  /**
   * Vectors that made way for busier ones: the relay serves them again.
   */
  uint64_t demotions;
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
   * MSIROUTE_DEVICE_...
   */
  uint32_t flags;
  /**
   * MSIROUTE_KIND_...
   */
  uint32_t kind;
  /**
   * 1 to 2048; of MSIROUTE_KIND_MSI 1, 2, 4, 8, 16 or 32.
   */
  uint32_t vectors;
  /**
   * Bus/device/function or ITS device ID, or MSIROUTE_NO_REQUESTER.
   */
  uint32_t requester;
  /**
   * MSIROUTE_KIND_PINS: the GSI of vector 0. Else 0.
   */
  uint32_t first_pin;
  /**
   * Where the MSI or MSI-X capability lies in config space, 0x40 to 0xff and a multiple of 4. 0: the VMM does not forward
   * accesses to config space, and the fields up to `pba_offset` are 0 too.
   */
  uint32_t cap_offset;
  /**
   * The next capability, or 0.
   */
  uint32_t cap_next;
  /**
   * MSI-X: the base address register (0 to 5) and the offset in it (a multiple of 8) of the table.
   */
  uint32_t table_bar;
  /**
   * See `table_bar`.
   */
  uint32_t table_offset;
  /**
   * The same of the pending bit array.
   */
  uint32_t pba_bar;
  /**
   * See `pba_bar`.
   */
  uint32_t pba_offset;
  /**
   * For logs; copied. May be NULL.
   */
  const char *name;
  /**
   * What a control call changed, once a call (or commit, or resume) however much it was, after the change is live:
   * on the calling thread, with no lock of the library's held. It may call anything but msi_device_free() of this
   * device. Calls on several threads may overtake each other, so what msi_device_state() and msi_vector_info() say
   * is what counts, and a later change makes another call. Binding and unbinding eventfds is no change. It must not
   * wait for a lock that is held around calls of msi_device_free() or msi_route_cache_pause(), which wait for it.
   * May be NULL.
   */
  void (*changed)(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n);
  /**
   * For `changed`; valid until msi_device_free() of the last reference has returned.
   */
  void *opaque;
};

/**
 * The VMM's vIOMMU: what becomes of a message.
 *
 * \param opaque     as given to msi_route_cache_set_remap().
 * \param requester  who sends it, or MSIROUTE_NO_REQUESTER.
 * \param address    the message as the guest wrote it; receives what becomes of it, in the form that a guest without
 *                   remapping would write (15-bit destinations and x2APIC IDs as msi_route_cache_set_addressing()
 *                   says).
 * \param data       the same.
 * \param tag        holds MSIROUTE_NO_TAG; receives a number that msi_route_cache_invalidate() will name: that of the
 *                   vIOMMU's table entry. Also of a message that is blocked; without a tag that is tried again at
 *                   every invalidation.
 * \return 0, or a negative number: the message is blocked. (What is no interrupt message afterwards is blocked too.)
 */
typedef int (*msi_route_cache_translate_fn)(void *opaque,
                                            uint32_t requester,
                                            uint64_t *address,
                                            uint32_t *data,
                                            uint64_t *tag);

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
 * \param config  its size is set (MSIROUTE_CACHE_CONFIG_INIT); read during the call.
 * \param cache   receives the handle, NULL on failure; ends with msi_route_cache_free().
 * \return 0; -ENOMEM; -EBADF (a descriptor is closed); -EINVAL (vm_fd is no VM, kvm_fd is not /dev/kvm, bad config); -E2BIG; -EMFILE;
 *         -ENOTSUP (messages can be sent neither directly nor by routes); -EBUSY (fences asked for too late); what opening
 *         /dev/kvm says.
 */
int msi_route_cache_new(const struct msi_route_cache_config *config,
                        struct msi_route_cache **cache);

/**
 * Unbinds everything and closes the library's descriptor of the VM. Devices still held answer -ESHUTDOWN until they are
 * freed. NULL is nothing. Not from inside a callback. [control]
 */
void msi_route_cache_free(struct msi_route_cache *cache);

/**
 * What works here. [fast]
 *
 * \param max_routes  receives the size of the kernel's table as this cache uses it, in entries; may be NULL.
 * \return MSIROUTE_HAS_...; 0 for a bad handle.
 */
uint32_t msi_route_cache_features(const struct msi_route_cache *cache, uint32_t *max_routes);

/**
 * Says how the guest addresses APICs: MSIROUTE_X2APIC_IDS, MSIROUTE_EXT_DEST_ID. May come late: live messages are encoded
 * anew, and one that is none any more holds what is raised. [control]
 *
 * \param flags  MSIROUTE_X2APIC_IDS, MSIROUTE_EXT_DEST_ID.
 * \return 0; -EINVAL (unknown flags, EXT_DEST_ID alone, or a message that is none any more); what the kernel says to the
 *         new routes. The addressing stands but for bad flags.
 */
int msi_route_cache_set_addressing(struct msi_route_cache *cache,
                                   uint32_t flags);

/**
 * Replaces the VMM's own routes, the kernel's default pins included (n = 0: none). Written at once, and with every later
 * write of the table; never evicted or renumbered. [control]
 *
 * \param entries  in the kernel's form; copied.
 * \param n        how many.
 * \return 0; -EINVAL (a GSI beyond the table, a kind the kernel does not know); -EBUSY (a GSI that an irqfd of the
 *         library's uses: first_gsi belongs above the VMM's own); -ENOSPC (more than the table holds);
 *         -ENOMEM; what the kernel says. On failure
 *         nothing is changed.
 */
int msi_route_cache_set_fixed(struct msi_route_cache *cache,
                              const struct kvm_irq_routing_entry *entries,
                              size_t n);

/**
 * From now on this thread's changes are staged until its matching commit: eventfds are given to the kernel, or follow their
 * vector's new message, there, all with one write of the table. Other threads' changes are live when their calls return, as
 * ever. Masking, and whatever else stops interrupts, is never staged. Nests. [control]
 *
 * \return 0; -EINVAL.
 */
int msi_route_cache_begin(struct msi_route_cache *cache);

/**
 * Makes this thread's staged changes live, explicit routes among them, then calls `changed` once a device. Without a
 * begin it makes live the explicit routes that were staged without one. Also tries again to serve vectors that could
 * not be served. [control]
 *
 * \return 0; -EINVAL; -ENOSPC (no route is free); what the kernel says (msi_route_cache_last_error() names the GSI that it
 *         refused). An error is the first that this thread's changes met; without a begin, that any met. Explicit routes
 *         and their irqfds are then as they were before begin, but for what was removed and unbound. Vectors keep what was
 *         written to them; those that are not served say so in msi_vector_info(), count their events, and are tried again.
 */
int msi_route_cache_commit(struct msi_route_cache *cache);

/**
 * Pauses the VM's interrupts, to save or restore it. Once this returns nothing of the library's reaches the guest:
 * what is raised is kept pending, eventfds count, msi_deliver_message() says -EAGAIN, and `changed` is neither running
 * (but for one that this is called from) nor called. Save and load devices meanwhile, and the guest's APICs: what was
 * sent before is in them, what comes now is not. Nests. [control]
 *
 * \return 0; -EINVAL; what the kernel says to unbinding eventfds (it is paused all the same, but those still interrupt).
 */
int msi_route_cache_pause(struct msi_route_cache *cache);

/**
 * Undoes one pause. With the last, each pending vector is sent once and eventfds are given to the kernel, with one write of
 * its table; then `changed` tells of what changed meanwhile. Restore the APICs before. [control]
 *
 * \return 0; -EINVAL (also if it is not paused); what serving the vectors says (the first error; the cache goes on all the
 *         same, and it is tried again).
 */
int msi_route_cache_resume(struct msi_route_cache *cache);

/**
 * Fills in the numbers of this moment. [control]
 *
 * \param stats  filled in; its size is set (MSIROUTE_STATS_INIT).
 * \return 0; -EINVAL.
 */
int msi_route_cache_stats(const struct msi_route_cache *cache, struct msi_route_cache_stats *stats);

/**
 * What this thread's last failed call says, in words. The wording may change. [fast]
 *
 * \return the text, valid until this thread's next failure; "" if none failed.
 */
const char *msi_route_cache_last_error(void);

/**
 * The library's version. [fast]
 *
 * \return "major.minor.patch"; static.
 */
const char *msi_route_cache_version(void);

/**
 * Raises a vector. [fast]
 *
 * \return MSIROUTE_SENT, MSIROUTE_PENDING, MSIROUTE_REFUSED, MSIROUTE_DISABLED or MSIROUTE_BLOCKED; -EINVAL (also if
 *         the VM has no interrupt controller yet); -ENODEV; -ESHUTDOWN; -EDEADLK (from inside a callback, and the
 *         message has no route yet); what the kernel says. After an error nothing was sent or kept.
 */
int msi_deliver(struct msi_device *dev,
                uint32_t index);

/**
 * Sends a message that belongs to no vector. [fast], but with a vIOMMU it calls `translate`, and takes a lock for that.
 *
 * \param requester           who sends it, or MSIROUTE_NO_REQUESTER.
 * \param address             as the guest wrote it, or translated: see the last.
 * \param data                the same.
 * \param already_translated  0: it is as the guest wrote it, and goes through the vIOMMU if there is one (see
 *         msi_route_cache_set_remap()); 1: it does not. (The vIOMMU's own, or what it has translated.)
 * \return MSIROUTE_SENT, MSIROUTE_REFUSED or MSIROUTE_BLOCKED (the vIOMMU refuses it; it is gone); -EINVAL (not a
 *         message, or the VM has no interrupt controller yet); -EAGAIN (the cache is paused: there is nowhere to keep
 *         it); -EDEADLK (from inside a callback, and the message has no route yet); what the kernel says.
 */
int msi_deliver_message(struct msi_route_cache *cache,
                        uint32_t requester,
                        uint64_t address,
                        uint32_t data,
                        int already_translated);

/**
 * Makes a device. [control]
 *
 * \param config  its size is set (MSIROUTE_DEVICE_CONFIG_INIT); read during the call.
 * \param dev     receives the handle, NULL on failure; ends with msi_device_free().
 * \return 0; -ENOMEM; -EINVAL (bad config: no such kind or number of vectors, a capability that cannot lie there); -E2BIG; -EBUSY
 *         (MSIROUTE_KIND_PINS: a GSI is the VMM's own or another's, or first_gsi is not above it); -ENOTSUP
 *         (MSIROUTE_KIND_PINS: there is no table).
 */
int msi_device_new(struct msi_route_cache *cache,
                   const struct msi_device_config *config,
                   struct msi_device **dev);

/**
 * One more owner of the handle (an I/O thread, a timer): it stays valid until each has called
 * msi_device_free(). [fast]
 *
 * \return `dev`; NULL for a bad handle.
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
 * Drops one owner's reference; the last one closes the device, and waits until its `changed` does not run. NULL is nothing.
 * Not from inside a callback. [control]
 */
void msi_device_free(struct msi_device *dev);

/**
 * Function-level reset: registers as of a new device, no messages, nothing pending. Bound eventfds stay with their
 * vectors; what they have counted is thrown away. The bus-master bit stays: it is the VMM's to change. [control]
 *
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what the kernel says to an unbind (the rest is done all the same).
 */
int msi_device_reset(struct msi_device *dev);

/**
 * The function has another requester ID: a guest renumbered its bus. [control]
 *
 * \param requester  the new one: bus/device/function, or MSIROUTE_NO_REQUESTER.
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what serving the vectors says (the requester stands).
 */
int msi_device_set_requester(struct msi_device *dev, uint32_t requester);

/**
 * Whether the function may master the bus (Command register, bit 2); a new device may. While it may not, it sends nothing
 * and keeps everything pending. [control]
 *
 * \param on  0: it may not; else it may.
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what serving the vectors says (the bit stands).
 */
int msi_device_set_bus_master(struct msi_device *dev,
                              int on);

/**
 * Message Control as the guest wrote it, for a VMM that keeps the register: MSIROUTE_ENABLED, and of MSI-X
 * MSIROUTE_FUNCTION_MASKED. Whatever number of vectors becomes live, the kernel's table is written at most once. [control]
 *
 * \param flags  the bits that are set.
 * \return 0; -EINVAL (a bit that the device's kind does not have); -ENODEV; -ESHUTDOWN; what serving the vectors says (the
 *         bits stand).
 */
int msi_device_set_control(struct msi_device *dev,
                           uint32_t flags);

/**
 * What lets the device send: its enable bit, its function mask, whether it may master the bus. [fast]
 *
 * \return MSIROUTE_ENABLED, MSIROUTE_FUNCTION_MASKED, MSIROUTE_BUS_MASTER; 0 for a bad handle.
 */
uint32_t msi_device_state(const struct msi_device *dev);

/**
 * Tells all that there is to tell of a cache, its devices and its routes, as JSON in UTF-8: docs/dump.schema.json says what
 * is in it. For people and their tools; may be called at any time. Two dumps' counters and times give rates.
 *
 * Waits for each device's lock, one at a time, and holds it as long as copying the state of its vectors takes (one poll(2) for
 * each eventfd that the kernel does not serve); for the table's and the relay's likewise. So each device is as it was at one
 * moment, but not all of them at the same. [control]
 *
 * \param write   called with the next piece, 1 to 4096 bytes, not zero-terminated; on this thread, with no lock held: it may
 *                call the library. A negative errno ends the dump.
 * \param opaque  for `write`.
 * \return 0; -EINVAL; -ENOMEM (`write` was not called); what `write` returned.
 */
int msi_route_cache_dump(const struct msi_route_cache *cache,
                         int (*write)(void *opaque, const char *text, size_t len),
                         void *opaque);

/**
 * Adds a route under a GSI that the VMM gets to know: for a VMM that already thinks in GSIs, and for entries that are no
 * messages (HV_SINT, Xen, pins). Staged until the commit, or until an irqfd is bound to it; then it is in the kernel's
 * table for good. Several IRQCHIP entries may be on a GSI, and an identical one again is nothing. A message that is none
 * (all zero, outside 0xFEExxxxx) keeps the GSI and is not in the table. [control]
 *
 * \param entry  in the kernel's form, all of it written; its `gsi` is not looked at.
 * \param flags  MSIROUTE_ROUTE_...
 * \param gsi    the GSI, or MSIROUTE_ANY_GSI for the lowest that is free: then it receives it.
 * \return 0; -EINVAL (a GSI beyond the table, unknown flags); -EBUSY (a GSI in use; the kernel's own pins are until
 *         msi_route_cache_set_fixed()); -ENOSPC (no GSI is free); -ENOMEM; -ENOTSUP (there is no table); -ESHUTDOWN; what
 *         the commit says that frees removed GSIs when there are no others.
 */
int msi_route_cache_add_route(struct msi_route_cache *cache,
                              const struct kvm_irq_routing_entry *entry,
                              uint32_t flags,
                              uint32_t *gsi);

/**
 * Gives a GSI another entry, in place of all it had. Its irqfds stay bound, and send what it says from the commit on.
 * [control]
 *
 * \param gsi    one that was added.
 * \param entry  in the kernel's form, all of it written; its `gsi` is not looked at.
 * \return 0; -ENOMEM; -ENOENT (it was not added); -EINVAL; -ESHUTDOWN.
 */
int msi_route_cache_update_route(struct msi_route_cache *cache,
                                 uint32_t gsi,
                                 const struct kvm_irq_routing_entry *entry);

/**
 * Lets a GSI go. Its irqfds are unbound when this returns; its route leaves the kernel's table with the commit, and
 * the GSI is free then. [control]
 *
 * \param gsi  one that was added.
 * \return 0; -ENOENT (it was not added); -EINVAL; -ESHUTDOWN; what the kernel says to an unbind (the GSI stays).
 */
int msi_route_cache_remove_route(struct msi_route_cache *cache,
                                 uint32_t gsi);

/**
 * From now on a signal of the eventfd raises the GSI: one that was added, a fixed route's, or the kernel's own pin.
 * Live when this returns, in a transaction with its commit. If the GSI's message is none, the eventfd counts until it
 * is one. [control]
 *
 * \param gsi         which.
 * \param fd          an eventfd; duplicated.
 * \param resamplefd  duplicated; -1, or the GSI is level-triggered: it stays raised until the guest ends the
 *                    interrupt, and this is signalled then.
 * \return 0; -ENOMEM; -EBADF (the descriptor is closed); -EINVAL (not an eventfd, a semaphore, a GSI beyond the table);
 *         -ENOENT (a GSI that was removed, before the commit); -EBUSY (bound already); -EMFILE; -ENOTSUP (no irqfds here); -ESHUTDOWN; what the kernel says, outside a
 *         transaction. On failure it is not bound.
 */
int msi_route_cache_bind_irqfd(struct msi_route_cache *cache,
                               uint32_t gsi,
                               int fd,
                               int resamplefd);

/**
 * Lets an eventfd go. No interrupt comes by it once this returns. [control]
 *
 * \param gsi  the one it was bound to.
 * \param fd   the number it was bound with, open or not.
 * \return 0; -ENOENT (it is not bound to this GSI); -EINVAL; -ESHUTDOWN; what the kernel says (it is still bound).
 */
int msi_route_cache_unbind_irqfd(struct msi_route_cache *cache,
                                 uint32_t gsi,
                                 int fd);

/**
 * A guest's read of the MSI-X table, of any offset and length: all ones where PCI defines nothing (it defines aligned
 * accesses of 4 and 8 bytes). [control]
 *
 * \param offset  from the table's start, in bytes.
 * \param data    filled, little-endian as in a KVM MMIO exit; with ones after an error, too.
 * \param len     in bytes.
 * \return 0; -EINVAL (not MSIROUTE_KIND_MSIX); -ENODEV; -ESHUTDOWN.
 */
int msi_device_table_read(struct msi_device *dev,
                          uint64_t offset,
                          void *data,
                          size_t len);

/**
 * A guest's write to the MSI-X table, of any offset and length: ignored where PCI defines nothing. A message that a
 * guest changes while its vector may send counts when address and data have both been written (with
 * MSIROUTE_X2APIC_IDS the address's high half too): never a part of each. One that is no interrupt message stands in
 * the table, and the vector keeps what is raised. Makes no system call while the vector is masked. [control]
 *
 * \param offset  from the table's start, in bytes.
 * \param data    little-endian as in a KVM MMIO exit.
 * \param len     in bytes.
 * \return 0; -EINVAL (not MSIROUTE_KIND_MSIX); -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if the vector cannot be
 *         served (what was written stands, its eventfds' events are counted, and it is tried again).
 */
int msi_device_table_write(struct msi_device *dev,
                           uint64_t offset,
                           const void *data,
                           size_t len);

/**
 * A guest's read of the MSI-X pending bit array: one bit a vector, in 64-bit words; else as msi_device_table_read(). Makes
 * system calls for vectors alone that have an eventfd and are masked. [control]
 *
 * \param offset  from the array's start, in bytes.
 * \param data    filled, as by msi_device_table_read().
 * \param len     in bytes.
 * \return 0; -EINVAL (not MSIROUTE_KIND_MSIX); -ENODEV; -ESHUTDOWN.
 */
int msi_device_pba_read(struct msi_device *dev,
                        uint64_t offset,
                        void *data,
                        size_t len);

/**
 * A guest's write to the MSI-X pending bit array, which changes nothing: it is read-only. [control]
 *
 * \param offset  from the array's start, in bytes.
 * \param data    not looked at.
 * \param len     in bytes.
 * \return 0; -EINVAL (not MSIROUTE_KIND_MSIX); -ENODEV; -ESHUTDOWN.
 */
int msi_device_pba_write(struct msi_device *dev, uint64_t offset, const void *data, size_t len);

/**
 * A guest's read of config space: fills in the bytes that lie in the capability and leaves the others alone. Read with
 * cap_offset and msi_device_capability_size() it gives the whole capability. [control]
 *
 * \param offset  from the start of config space, in bytes.
 * \param data    filled where the capability lies, little-endian.
 * \param len     in bytes.
 * \return 1 if some bytes lay in the capability, else 0; -EINVAL; -ENODEV; -ESHUTDOWN.
 */
int msi_device_config_read(struct msi_device *dev,
                           uint32_t offset,
                           void *data,
                           size_t len);

/**
 * A guest's write to config space: takes the bytes that lie in the capability, in any width, and of them what is writable.
 * However many vectors it opens, the kernel's table is written at most once. [control]
 *
 * \param offset  from the start of config space, in bytes.
 * \param data    little-endian.
 * \param len     in bytes.
 * \return 1 if some bytes lay in the capability, else 0; -EINVAL; -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if
 *         vectors cannot be served (what was written stands, and it is tried again).
 */
int msi_device_config_write(struct msi_device *dev,
                            uint32_t offset,
                            const void *data,
                            size_t len);

/**
 * The length of the MSI or MSI-X capability. [fast]
 *
 * \return the length in bytes; 0 where there is none, and for a bad handle.
 */
size_t msi_device_capability_size(const struct msi_device *dev);

/**
 * Sets where messages go that no caller can be told, for the whole process; NULL: nowhere, as at the start. The
 * function may be called on any thread, possibly once more after it was replaced; it must not call the library.
 * `message` lasts for the call. [control]
 *
 * \param log  gets MSIROUTE_LOG_... as `level`, and one line of text without its end.
 */
void msi_route_cache_set_log(void (*log)(void *opaque, uint32_t level, const char *message),
                             void *opaque);

/**
 * Turns the relay on, if it is not: eventfds of open vectors are then served from user space, by whoever runs it,
 * until those that are busy and calm have been given to the kernel. Setting and unmasking write no table any more, and
 * eventfds may outnumber routes. (Vectors with a MSIROUTE_EVENTFD_KERNEL_ONLY eventfd, pins and explicit routes are as
 * without it.) Vectors that were unserved are its at once. The library makes no thread: run it in the VMM's main loop,
 * by msi_route_cache_relay_run() whenever this descriptor is readable, or lend it threads,
 * msi_route_cache_relay_loop(). [control]
 *
 * \return the descriptor, to be polled for POLLIN (it stays the library's, the same until msi_route_cache_free()); -EINVAL;
 *         -EMFILE; -ENOMEM; -ENOSPC (more eventfds than fs.epoll.max_user_watches allows). After an error it is off.
 */
int msi_route_cache_relay_fd(struct msi_route_cache *cache);

/**
 * Serves what is signalled now, in one bounded batch, and promotes what is due; waits for no event. Any thread; several
 * may. [control]
 *
 * \return 1 if more may be ready, else 0; -EINVAL (also if the relay is off).
 */
int msi_route_cache_relay_run(struct msi_route_cache *cache);

/**
 * Serves until msi_route_cache_relay_stop() or msi_route_cache_free(). Any thread; its name, signals, priority and seccomp
 * filter are the VMM's. [control]
 *
 * \return 0; -EINVAL (also if the relay is off).
 */
int msi_route_cache_relay_loop(struct msi_route_cache *cache);

/**
 * Turns the relay off: ends run and loop, on whatever thread, and then gives what it served to the kernel, with one
 * write of the table. Not from inside a callback. [control]
 *
 * \return 0; -EINVAL (also if it is off); -ENOSPC (not routes enough: the vectors left over are UNSERVED now,
 *         their events counted); what the kernel says. After an error it is off all the same.
 */
int msi_route_cache_relay_stop(struct msi_route_cache *cache);

/**
 * From now on the messages of the VM's devices go through the vIOMMU, live ones too; but for those of devices with
 * MSIROUTE_DEVICE_NO_REMAP, and explicit routes, which the VMM translates. A vector's message is translated when the
 * vector could send it: when it is set or unmasked, and at invalidations; never in msi_deliver(). Paused, nothing is
 * translated. [control]
 *
 * `translate` is called inside every [control] call that may change what a vector sends, msi_route_cache_invalidate()
 * among them, and inside msi_deliver_message(): on the calling thread, with no lock of the library's held, on several
 * threads at once. So hold no lock around those that it takes itself (a recursive one apart): let go of the vIOMMU's
 * lock before invalidating. Nor may it wait for a lock that another thread holds around this function,
 * msi_route_cache_pause() or msi_route_cache_free(): those wait for it. It may call msi_deliver() and
 * msi_deliver_message(); other functions say -EDEADLK. It is asked when a vector could send, not when one does: a
 * fault is to be recorded when msi_deliver() says MSIROUTE_BLOCKED, not in here. (An eventfd's events say nothing:
 * they are counted. Hardware would drop what is blocked; here it is kept.)
 *
 * \param translate  NULL: messages are sent as the guest wrote them. When this returns the old one does not run and is
 *                   not called any more.
 * \return 0; -ENOMEM; -EINVAL; what serving the vectors says (it stands, and serving is tried again).
 */
int msi_route_cache_set_remap(struct msi_route_cache *cache,
                              msi_route_cache_translate_fn translate,
                              void *opaque);

/**
 * The vIOMMU's entries with these tags have changed, as the guest said by invalidating them. When this returns no
 * message that they made before is sent any more, and live vectors send what they say now; what they block now is
 * held. Only messages with such a tag are translated again (and those that were blocked without one), and the kernel's
 * table is written at most once, also inside a transaction. [control]
 *
 * \param requester  of this device alone; MSIROUTE_NO_REQUESTER: of any.
 * \param first_tag  0 with a last_tag of UINT64_MAX: all.
 * \param last_tag   inclusive.
 * \return 0; -EINVAL (also for a first_tag above last_tag); what serving the vectors says (it is tried again, and
 *         nothing old is sent).
 */
int msi_route_cache_invalidate(struct msi_route_cache *cache,
                               uint32_t requester,
                               uint64_t first_tag,
                               uint64_t last_tag);

/**
 * How many bytes msi_device_save() writes: the same for every device of this kind and as many vectors. [fast]
 *
 * \return the length in bytes; 0 for a bad handle.
 */
size_t msi_device_save_size(const struct msi_device *dev);

/**
 * Saves the device: messages, masks, enable bits, bus master, and what is pending, in a format that stays
 * (docs/snapshot.md). What its eventfds have counted is saved as pending, and stays counted. Pause the cache first,
 * and stop the vCPUs: else it is the state of a moment. [control]
 *
 * \param data  filled.
 * \param len   msi_device_save_size(), in bytes.
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN.
 */
int msi_device_save(struct msi_device *dev,
                    void *data,
                    size_t len);

/**
 * Makes the device what was saved, of a device of the same kind and as many vectors, whatever its GSIs were. Eventfds stay
 * bound, and what they have counted stays counted. The requester is not part of it. In a cache that is not paused, what is
 * pending may be sent before this returns. [control]
 *
 * \param data  what msi_device_save() wrote; copied, and not trusted.
 * \param len   in bytes.
 * \return 0; -EINVAL (not a saved state of such a device: nothing is changed); -ENOTSUP (one of another version:
 *         nothing is changed); -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if vectors cannot be served (the
 *         state stands, and it is tried again).
 */
int msi_device_load(struct msi_device *dev,
                    const void *data,
                    size_t len);

/**
 * The registers as the guest reads them, for a VMM with a format of its own. [control]
 *
 * \param cap        the capability, filled; NULL and a length of 0: left out, as of the others.
 * \param cap_len    msi_device_capability_size(), in bytes.
 * \param table      the MSI-X table, filled.
 * \param table_len  in bytes: 16 a vector.
 * \param pba        the MSI-X pending bit array, filled.
 * \param pba_len    in bytes: whole bytes, or whole 64-bit words.
 * \return 0; -EINVAL (a length that does not fit); -ENODEV; -ESHUTDOWN.
 */
int msi_device_export(struct msi_device *dev,
                      void *cap,
                      size_t cap_len,
                      void *table,
                      size_t table_len,
                      void *pba,
                      size_t pba_len);

/**
 * Registers that were exported, or saved by another implementation, applied at once; what is left out stays. Pending bits
 * of an MSI capability come with it. [control]
 *
 * \param cap        as of msi_device_export(), and so the others; not trusted.
 * \param cap_len    in bytes.
 * \param table      the MSI-X table.
 * \param table_len  in bytes.
 * \param pba        the MSI-X pending bit array.
 * \param pba_len    in bytes.
 * \return 0; -EINVAL (a length that does not fit, another capability, a vector pending that does not exist: nothing is
 *         changed); -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if vectors cannot be served (the registers stand).
 */
int msi_device_import(struct msi_device *dev,
                      const void *cap,
                      size_t cap_len,
                      const void *table,
                      size_t table_len,
                      const void *pba,
                      size_t pba_len);

/**
 * Gives a vector a message: the guest's address and data. Once this returns the old one is not sent any more, and no
 * mixture of the two ever is. (In a transaction, what its eventfds send changes with the commit.) In MSI-X registers
 * it is as if the guest had written both at once. [control]
 *
 * \param address  the message, as the guest wrote it.
 * \param data     the same.
 * \return 0; -EINVAL (a device of MSIROUTE_KIND_MSI, or not a message: nothing is changed, so clear the vector if the
 *         old message must go); -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if its eventfds cannot be served
 *         (the message stands, their events are counted, and it is tried again).
 */
int msi_vector_set(struct msi_device *dev,
                   uint32_t index,
                   uint64_t address,
                   uint32_t data);

/**
 * Takes a vector's message away: what is raised is kept pending until it has one again. A pin leaves the kernel's
 * table (in a transaction with the commit). [control]
 *
 * \return 0; -EINVAL (also of MSIROUTE_KIND_MSI); -ENODEV; -ESHUTDOWN; what the kernel says to unbinding an eventfd.
 */
int msi_vector_clear(struct msi_device *dev,
                     uint32_t index);

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
 * A vector's pending bit: raised, by msi_deliver() or an eventfd, and not sent yet. [control]
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
 * From now on a signal of the eventfd raises the vector; what it has counted already counts as one. A vector may have
 * any number of eventfds (queues share it), an eventfd one vector. A blocking eventfd is fine; its flags are not
 * touched. [control]
 *
 * \param fd     an eventfd; duplicated, unless MSIROUTE_EVENTFD_BORROWED.
 * \param flags  MSIROUTE_EVENTFD_...
 * \return 0; -ENOMEM; -EBADF (the descriptor is closed); -EINVAL (not an eventfd, a semaphore, unknown flags, MASKED_AT_SOURCE
 *         of a device without `changed`); -EBUSY (bound already, by whatever number); -ENOTSUP (no irqfds here);
 *         -EMFILE; -ENODEV; -ESHUTDOWN; -ENOSPC (no route is free, outside a transaction); what the kernel says,
 *         outside a transaction. On failure it is not bound.
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
 * \param info  filled in; its size is set (MSIROUTE_VECTOR_INFO_INIT).
 * \return 0; -EINVAL; -ENODEV; -ESHUTDOWN.
 */
int msi_vector_info(struct msi_device *dev, uint32_t index, struct msi_vector_info *info);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MSIROUTE_H */
