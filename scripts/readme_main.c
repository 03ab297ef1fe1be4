/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Runs the README's example on /dev/kvm: what the NIC received, and what is written to its eventfd, are the vectors that its
 * guest chose, in the vCPU's APIC. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <msiroute.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct msi_device *new_nic(int vm_fd, int kick_fd);
void nic_bar2_write(struct msi_device *nic, uint64_t offset, const void *data, size_t len);
void nic_received(struct msi_device *nic);

#define APIC_SPURIOUS 0x0F0
#define APIC_IRR      0x200     /* 32 vectors every 16 bytes */

static int arrived(int cpu, unsigned vector)
{
    struct kvm_lapic_state apic;
    uint32_t word = 0;
    for (int i = 0; i < 1000 && !(word >> vector % 32 & 1); i++, usleep(1000)) {
        if (ioctl(cpu, KVM_GET_LAPIC, &apic))
            return 0;
        memcpy(&word, apic.regs + APIC_IRR + vector / 32 * 16, sizeof(word));
    }
    return word >> vector % 32 & 1;
}

static int must(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        _exit(1);
    }
    return result;
}

int main(void)
{
    int kvm = must(open("/dev/kvm", O_RDWR), "/dev/kvm"), vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    int cpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU"), kick = eventfd(0, 0);
    struct kvm_lapic_state apic;
    uint32_t on = 0x1FF;
    must(ioctl(cpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");
    memcpy(apic.regs + APIC_SPURIOUS, &on, sizeof(on));
    must(ioctl(cpu, KVM_SET_LAPIC, &apic), "KVM_SET_LAPIC");

    struct msi_device *nic = new_nic(vm, kick);
    uint16_t enable = 0x8000;
    uint32_t table[2][4] = { { 0xFEE00000, 0, 0x41, 0 }, { 0xFEE00000, 0, 0x42, 0 } };
    if (!nic) {
        fprintf(stderr, "%s\n", msi_route_cache_last_error());
        return 1;
    }
    for (unsigned i = 0; i < 8; i++)
        nic_bar2_write(nic, i * 4, &table[i / 4][i % 4], 4);
    must(msi_device_config_write(nic, 0x42, &enable, 2), "enabling MSI-X");
    nic_received(nic);
    must(eventfd_write(kick, 1), "the eventfd");
    if (!arrived(cpu, 0x41) || !arrived(cpu, 0x42)) {
        fprintf(stderr, "an interrupt did not arrive\n");
        return 1;
    }
    puts("both interrupts arrived");
    return 0;
}
