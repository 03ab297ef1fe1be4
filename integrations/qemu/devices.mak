# SPDX-License-Identifier: GPL-2.0-or-later
# QEMU's machines and devices that the tests use; all others stay out (--without-default-devices).
CONFIG_I440FX=y
CONFIG_Q35=y
CONFIG_VTD=y
CONFIG_ISA_DEBUG=y
CONFIG_PCIE_PORT=y
CONFIG_IOH3420=y
CONFIG_EDU=y
CONFIG_IVSHMEM_DEVICE=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_RNG=y
CONFIG_VHOST_USER_BLK=y
