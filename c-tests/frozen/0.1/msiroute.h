/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef MSIROUTE_H
#define MSIROUTE_H 
#include <stddef.h>
#include <stdint.h>
#define MSIROUTE_VERSION_MAJOR 0
#define MSIROUTE_VERSION_MINOR 1
#define MSIROUTE_VERSION_PATCH 0
#define MSIROUTE_CACHE_CONFIG_INIT { .size = sizeof(struct msi_route_cache_config), .vm_fd = -1, .kvm_fd = -1 }
#define MSIROUTE_CACHE_OPS_INIT { .size = sizeof(struct msi_route_cache_ops) }
#define MSIROUTE_DEVICE_CONFIG_INIT { .size = sizeof(struct msi_device_config), .requester = MSIROUTE_NO_REQUESTER }
#define MSIROUTE_STATS_INIT { .size = sizeof(struct msi_route_cache_stats) }
#define MSIROUTE_VECTOR_INFO_INIT { .size = sizeof(struct msi_vector_info) }
struct kvm_irq_routing_entry;
#define MSIROUTE_NO_REQUESTER UINT32_MAX
#define MSIROUTE_ANY_GSI UINT32_MAX
#define MSIROUTE_NO_TAG UINT64_MAX
#define MSIROUTE_CACHE_NO_DIRECT (1 << 0)
#define MSIROUTE_CACHE_MODEL (1 << 1)
#define MSIROUTE_CACHE_FENCES (1 << 2)
#define MSIROUTE_CACHE_PAUSED (1 << 3)
#define MSIROUTE_CACHE_HELPER_THREADS (1 << 4)
#define MSIROUTE_HAS_DIRECT (1 << 0)
#define MSIROUTE_HAS_IRQFD (1 << 1)
#define MSIROUTE_HAS_RESAMPLE (1 << 2)
#define MSIROUTE_HAS_REQUESTER (1 << 3)
#define MSIROUTE_X2APIC_IDS (1 << 0)
#define MSIROUTE_EXT_DEST_ID (1 << 1)
#define MSIROUTE_ROUTE_IRQFD_ONLY (1 << 0)
#define MSIROUTE_LOG_ERROR 1
#define MSIROUTE_LOG_INFO 2
#define MSIROUTE_KIND_PLAIN 0
#define MSIROUTE_KIND_MSIX 1
#define MSIROUTE_KIND_MSI 2
#define MSIROUTE_KIND_PINS 3
#define MSIROUTE_DEVICE_MSI_64 (1 << 0)
#define MSIROUTE_DEVICE_MSI_MASK (1 << 1)
#define MSIROUTE_DEVICE_DATA0_OFF (1 << 2)
#define MSIROUTE_DEVICE_NO_REMAP (1 << 3)
#define MSIROUTE_CHANGED_ENABLE (1 << 0)
#define MSIROUTE_CHANGED_VECTORS (1 << 1)
#define MSIROUTE_ENABLED (1 << 0)
#define MSIROUTE_FUNCTION_MASKED (1 << 1)
#define MSIROUTE_BUS_MASTER (1 << 2)
#define MSIROUTE_EVENTFD_KERNEL_ONLY (1 << 0)
#define MSIROUTE_EVENTFD_BORROWED (1 << 1)
#define MSIROUTE_EVENTFD_RELAY_ONLY (1 << 3)
#define MSIROUTE_EVENTFD_MASKED_AT_SOURCE (1 << 2)
#define MSIROUTE_VECTOR_SET (1 << 0)
#define MSIROUTE_VECTOR_MASKED (1 << 1)
#define MSIROUTE_VECTOR_LIVE (1 << 2)
#define MSIROUTE_VECTOR_IN_KERNEL (1 << 3)
#define MSIROUTE_VECTOR_UNSERVED (1 << 4)
#define MSIROUTE_VECTOR_RELAYED (1 << 6)
#define MSIROUTE_VECTOR_BLOCKED (1 << 5)
#define MSIROUTE_SENT 0
#define MSIROUTE_PENDING 1
#define MSIROUTE_REFUSED 2
#define MSIROUTE_DISABLED 3
#define MSIROUTE_BLOCKED 4
struct msi_device;
struct msi_route_cache;
struct msi_route_cache_ops {
  uint32_t size;
  uint32_t flags;
  int (*signal)(void *opaque, uint32_t requester, uint64_t address, uint32_t data);
  int (*set_routes)(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n);
  int (*bind_irqfd)(void *opaque, int fd, int resamplefd, uint32_t gsi);
  int (*unbind_irqfd)(void *opaque, int fd, uint32_t gsi);
  int (*raise_gsi)(void *opaque, uint32_t gsi);
  int (*gsi_of)(void *opaque, uint64_t address, uint32_t data);
};
struct msi_route_cache_config {
  uint32_t size;
  uint32_t flags;
  int32_t vm_fd;
  int32_t kvm_fd;
  uint32_t first_gsi;
  uint32_t max_routes;
  const struct msi_route_cache_ops *ops;
  void *opaque;
};
struct msi_route_cache_stats {
  uint32_t size;
  uint32_t flags;
  uint64_t table_writes;
  uint64_t table_write_errors;
  uint64_t routes;
  uint64_t routes_pinned;
  uint64_t evictions;
  uint64_t irqfd_binds;
  uint64_t irqfd_unbinds;
  uint64_t relayed_vectors;
  uint64_t relayed_messages;
  uint64_t promotions;
  uint64_t demotions;
  uint64_t unserved_vectors;
};
struct msi_device_config {
  uint32_t size;
  uint32_t flags;
  uint32_t kind;
  uint32_t vectors;
  uint32_t requester;
  uint32_t first_pin;
  uint32_t cap_offset;
  uint32_t cap_next;
  uint32_t table_bar;
  uint32_t table_offset;
  uint32_t pba_bar;
  uint32_t pba_offset;
  const char *name;
  void (*changed)(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n);
  void *opaque;
};
typedef int (*msi_route_cache_translate_fn)(void *opaque,
                                            uint32_t requester,
                                            uint64_t *address,
                                            uint32_t *data,
                                            uint64_t *tag);
struct msi_vector_info {
  uint32_t size;
  uint32_t flags;
  uint64_t address;
  uint32_t data;
  uint32_t eventfds;
  uint32_t gsi;
  int32_t error;
};
#ifdef __cplusplus
extern "C" {
#endif
int msi_route_cache_new(const struct msi_route_cache_config *config,
                        struct msi_route_cache **cache);
void msi_route_cache_free(struct msi_route_cache *cache);
uint32_t msi_route_cache_features(const struct msi_route_cache *cache, uint32_t *max_routes);
int msi_route_cache_set_addressing(struct msi_route_cache *cache,
                                   uint32_t flags);
int msi_route_cache_set_fixed(struct msi_route_cache *cache,
                              const struct kvm_irq_routing_entry *entries,
                              size_t n);
int msi_route_cache_begin(struct msi_route_cache *cache);
int msi_route_cache_commit(struct msi_route_cache *cache);
int msi_route_cache_pause(struct msi_route_cache *cache);
int msi_route_cache_resume(struct msi_route_cache *cache);
int msi_route_cache_stats(const struct msi_route_cache *cache, struct msi_route_cache_stats *stats);
const char *msi_route_cache_last_error(void);
const char *msi_route_cache_version(void);
int msi_deliver(struct msi_device *dev,
                uint32_t index);
int msi_deliver_message(struct msi_route_cache *cache,
                        uint32_t requester,
                        uint64_t address,
                        uint32_t data,
                        int already_translated);
int msi_device_new(struct msi_route_cache *cache,
                   const struct msi_device_config *config,
                   struct msi_device **dev);
struct msi_device *msi_device_ref(struct msi_device *dev);
int msi_device_close(struct msi_device *dev);
void msi_device_free(struct msi_device *dev);
int msi_device_reset(struct msi_device *dev);
int msi_device_set_requester(struct msi_device *dev, uint32_t requester);
int msi_device_set_bus_master(struct msi_device *dev,
                              int on);
int msi_device_set_control(struct msi_device *dev,
                           uint32_t flags);
uint32_t msi_device_state(const struct msi_device *dev);
int msi_route_cache_dump(const struct msi_route_cache *cache,
                         int (*write)(void *opaque, const char *text, size_t len),
                         void *opaque);
int msi_route_cache_add_route(struct msi_route_cache *cache,
                              const struct kvm_irq_routing_entry *entry,
                              uint32_t flags,
                              uint32_t *gsi);
int msi_route_cache_update_route(struct msi_route_cache *cache,
                                 uint32_t gsi,
                                 const struct kvm_irq_routing_entry *entry);
int msi_route_cache_remove_route(struct msi_route_cache *cache,
                                 uint32_t gsi);
int msi_route_cache_bind_irqfd(struct msi_route_cache *cache,
                               uint32_t gsi,
                               int fd,
                               int resamplefd);
int msi_route_cache_unbind_irqfd(struct msi_route_cache *cache,
                                 uint32_t gsi,
                                 int fd);
int msi_device_table_read(struct msi_device *dev,
                          uint64_t offset,
                          void *data,
                          size_t len);
int msi_device_table_write(struct msi_device *dev,
                           uint64_t offset,
                           const void *data,
                           size_t len);
int msi_device_pba_read(struct msi_device *dev,
                        uint64_t offset,
                        void *data,
                        size_t len);
int msi_device_pba_write(struct msi_device *dev, uint64_t offset, const void *data, size_t len);
int msi_device_config_read(struct msi_device *dev,
                           uint32_t offset,
                           void *data,
                           size_t len);
int msi_device_config_write(struct msi_device *dev,
                            uint32_t offset,
                            const void *data,
                            size_t len);
size_t msi_device_capability_size(const struct msi_device *dev);
void msi_route_cache_set_log(void (*log)(void *opaque, uint32_t level, const char *message),
                             void *opaque);
int msi_route_cache_relay_fd(struct msi_route_cache *cache);
int msi_route_cache_relay_run(struct msi_route_cache *cache);
int msi_route_cache_relay_loop(struct msi_route_cache *cache);
int msi_route_cache_relay_stop(struct msi_route_cache *cache);
int msi_route_cache_set_remap(struct msi_route_cache *cache,
                              msi_route_cache_translate_fn translate,
                              void *opaque);
int msi_route_cache_invalidate(struct msi_route_cache *cache,
                               uint32_t requester,
                               uint64_t first_tag,
                               uint64_t last_tag);
size_t msi_device_save_size(const struct msi_device *dev);
int msi_device_save(struct msi_device *dev,
                    void *data,
                    size_t len);
int msi_device_load(struct msi_device *dev,
                    const void *data,
                    size_t len);
int msi_device_export(struct msi_device *dev,
                      void *cap,
                      size_t cap_len,
                      void *table,
                      size_t table_len,
                      void *pba,
                      size_t pba_len);
int msi_device_import(struct msi_device *dev,
                      const void *cap,
                      size_t cap_len,
                      const void *table,
                      size_t table_len,
                      const void *pba,
                      size_t pba_len);
int msi_vector_set(struct msi_device *dev,
                   uint32_t index,
                   uint64_t address,
                   uint32_t data);
int msi_vector_clear(struct msi_device *dev,
                     uint32_t index);
int msi_vector_mask(struct msi_device *dev,
                    uint32_t index);
int msi_vector_unmask(struct msi_device *dev,
                      uint32_t index);
int msi_vector_is_pending(struct msi_device *dev, uint32_t index);
int msi_vector_clear_pending(struct msi_device *dev,
                             uint32_t index);
int msi_vector_bind_eventfd(struct msi_device *dev,
                            uint32_t index,
                            int fd,
                            uint32_t flags);
int msi_vector_unbind_eventfd(struct msi_device *dev,
                              uint32_t index,
                              int fd);
int msi_vector_info(struct msi_device *dev, uint32_t index, struct msi_vector_info *info);
#ifdef __cplusplus
}
#endif
#endif
