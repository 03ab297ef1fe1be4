/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where the fields of the header's structs lie, on a machine of 64 bits. src/capi/layout.rs says the same in Rust. Holds if
 * it compiles. */
#include <msiroute.h>

#define SIZE(name, size)            _Static_assert(sizeof(struct name) == (size), #name)
#define FIELD(name, field, offset)  _Static_assert(offsetof(struct name, field) == (offset), #name "." #field)

#if UINTPTR_MAX == UINT64_MAX
SIZE(msi_route_cache_ops, 56);
FIELD(msi_route_cache_ops, size, 0);
FIELD(msi_route_cache_ops, flags, 4);
FIELD(msi_route_cache_ops, signal, 8);
FIELD(msi_route_cache_ops, set_routes, 16);
FIELD(msi_route_cache_ops, bind_irqfd, 24);
FIELD(msi_route_cache_ops, unbind_irqfd, 32);
FIELD(msi_route_cache_ops, raise_gsi, 40);
FIELD(msi_route_cache_ops, gsi_of, 48);

SIZE(msi_route_cache_config, 40);
FIELD(msi_route_cache_config, size, 0);
FIELD(msi_route_cache_config, flags, 4);
FIELD(msi_route_cache_config, vm_fd, 8);
FIELD(msi_route_cache_config, kvm_fd, 12);
FIELD(msi_route_cache_config, first_gsi, 16);
FIELD(msi_route_cache_config, max_routes, 20);
FIELD(msi_route_cache_config, ops, 24);
FIELD(msi_route_cache_config, opaque, 32);

SIZE(msi_route_cache_stats, 104);
FIELD(msi_route_cache_stats, size, 0);
FIELD(msi_route_cache_stats, flags, 4);
FIELD(msi_route_cache_stats, table_writes, 8);
FIELD(msi_route_cache_stats, table_write_errors, 16);
FIELD(msi_route_cache_stats, routes, 24);
FIELD(msi_route_cache_stats, routes_pinned, 32);
FIELD(msi_route_cache_stats, evictions, 40);
FIELD(msi_route_cache_stats, irqfd_binds, 48);
FIELD(msi_route_cache_stats, irqfd_unbinds, 56);
FIELD(msi_route_cache_stats, relayed_vectors, 64);
FIELD(msi_route_cache_stats, relayed_messages, 72);
FIELD(msi_route_cache_stats, promotions, 80);
FIELD(msi_route_cache_stats, demotions, 88);
FIELD(msi_route_cache_stats, unserved_vectors, 96);

SIZE(msi_device_config, 72);
FIELD(msi_device_config, size, 0);
FIELD(msi_device_config, flags, 4);
FIELD(msi_device_config, kind, 8);
FIELD(msi_device_config, vectors, 12);
FIELD(msi_device_config, requester, 16);
FIELD(msi_device_config, first_pin, 20);
FIELD(msi_device_config, cap_offset, 24);
FIELD(msi_device_config, cap_next, 28);
FIELD(msi_device_config, table_bar, 32);
FIELD(msi_device_config, table_offset, 36);
FIELD(msi_device_config, pba_bar, 40);
FIELD(msi_device_config, pba_offset, 44);
FIELD(msi_device_config, name, 48);
FIELD(msi_device_config, changed, 56);
FIELD(msi_device_config, opaque, 64);

SIZE(msi_vector_info, 32);
FIELD(msi_vector_info, size, 0);
FIELD(msi_vector_info, flags, 4);
FIELD(msi_vector_info, address, 8);
FIELD(msi_vector_info, data, 16);
FIELD(msi_vector_info, eventfds, 20);
FIELD(msi_vector_info, gsi, 24);
FIELD(msi_vector_info, error, 28);
#endif
