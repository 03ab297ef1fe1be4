// SPDX-License-Identifier: MIT OR Apache-2.0
//! An interrupt message: 64 bits of address, 32 of data, and who sends it.
//!
//! A guest writes a message in PCI's terms; the kernel wants it in its own. [`Addressing::encode`]
//! is the one way from the first to the second, and the place where a message that is none is
//! refused: the kernel itself does not check (address 0 reaches APIC 0).

/// "No requester": the message's sender does not matter to the host.
pub const NO_REQUESTER: u32 = u32::MAX;

/// A message as a guest writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestMessage {
    /// Message address, and message upper address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

impl GuestMessage {
    /// Whether a vIOMMU takes the write for an interrupt: VT-d 5.1.2 (0xFEExxxxx); the rest is for it to say.
    pub(crate) fn is_interrupt(self) -> bool {
        cfg!(not(any(target_arch = "x86_64", target_arch = "x86")))
            || (self.address & 0xFFFF_FFFF) >> 20 == 0xFEE
    }
}

/// A message in the form the kernel takes (`struct kvm_msi`, `struct kvm_irq_routing_msi`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// `address_lo` in the low half, `address_hi` in the high one.
    pub address: u64,
    /// On x86: vector, delivery mode, trigger mode.
    pub data: u32,
    /// Bus/device/function or ITS device ID of the sender, or [`NO_REQUESTER`].
    pub requester: u32,
}

impl Message {
    /// The low half of the address.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    pub fn address_lo(&self) -> u32 {
        self.address as u32
    }

    /// The high half of the address.
    pub fn address_hi(&self) -> u32 {
        (self.address >> 32) as u32
    }
}

/// Which forms of a destination the guest was offered, beyond the 8 bits every APIC has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addressing {
    /// `KVM_X2APIC_API_USE_32BIT_IDS` is on: `address_hi` bits 31:8 are destination bits 31:8.
    pub x2apic_ids: bool,
    /// `KVM_FEATURE_MSI_EXT_DEST_ID` was offered: address bits 11:5 are destination bits 14:8.
    /// Needs `x2apic_ids`, for that is how the kernel takes the wider destination.
    pub ext_dest_id: bool,
}

impl Addressing {
    pub(crate) fn to_bits(self) -> u8 {
        u8::from(self.x2apic_ids) | u8::from(self.ext_dest_id) << 1
    }

    pub(crate) fn from_bits(bits: u8) -> Self {
        Addressing { x2apic_ids: bits & 1 != 0, ext_dest_id: bits & 2 != 0 }
    }

    /// The guest's message in the kernel's form; `None` if it is no interrupt message.
    ///
    /// x86: Intel SDM 3A 11.11.1 (window 0xFEExxxxx), `Documentation/virt/kvm/api.rst`
    /// (`KVM_SIGNAL_MSI`: `address_hi` bits 7:0 must be zero).
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    pub fn encode(self, message: GuestMessage, requester: u32) -> Option<Message> {
        const WINDOW: u64 = 0xFEE;
        /// Destination bits 14:8, where the guest puts them.
        const EXT_DEST: u64 = 0x7F << 5;
        /// From there to `address_hi` bits 14:8.
        const EXT_DEST_SHIFT: u32 = 35;
        /// Set: remappable format, in which bits 11:5 mean something else.
        const REMAPPABLE: u64 = 1 << 4;

        let GuestMessage { mut address, data } = message;
        let (low, high) = (address & 0xFFFF_FFFF, address >> 32);
        let high_is_destination = self.x2apic_ids && high & 0xFF == 0;
        if low >> 20 != WINDOW || (high != 0 && !high_is_destination) {
            return None;
        }
        if self.ext_dest_id && high == 0 && address & REMAPPABLE == 0 {
            let ext_dest = address & EXT_DEST;
            address = (address & !EXT_DEST) | (ext_dest << EXT_DEST_SHIFT);
        }
        Some(Message { address, data, requester })
    }

    /// The guest's message in the kernel's form: elsewhere than on x86 any address is one.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
    pub fn encode(self, message: GuestMessage, requester: u32) -> Option<Message> {
        let GuestMessage { address, data } = message;
        Some(Message { address, data, requester })
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    const PLAIN: Addressing = Addressing { x2apic_ids: false, ext_dest_id: false };
    const X2APIC: Addressing = Addressing { x2apic_ids: true, ext_dest_id: false };
    const EXT: Addressing = Addressing { x2apic_ids: true, ext_dest_id: true };

    fn address(how: Addressing, address: u64) -> Option<u64> {
        how.encode(GuestMessage { address, data: 0x41 }, NO_REQUESTER).map(|m| m.address)
    }

    #[test]
    fn only_the_window_is_a_message() {
        assert_eq!(address(PLAIN, 0xFEE0_1000), Some(0xFEE0_1000));
        assert_eq!(address(PLAIN, 0xFEEF_FFFC), Some(0xFEEF_FFFC));
        for outside in [0, 0xFEDF_FFFC, 0xFEF0_0000, 0xFFFF_FFFF] {
            assert_eq!(address(PLAIN, outside), None, "{outside:#x}");
        }
    }

    #[test]
    fn the_high_half_is_a_destination_only_with_x2apic_ids() {
        assert_eq!(address(PLAIN, 0x0000_0100_FEE0_0000), None);
        assert_eq!(address(X2APIC, 0x0000_0100_FEE0_0000), Some(0x0000_0100_FEE0_0000));
        assert_eq!(address(X2APIC, 0x0000_0101_FEE0_0000), None, "bits 7:0 are reserved");
    }

    #[test]
    fn fifteen_bit_destinations_move_to_the_high_half() {
        // destination 300 = 0x12C: low byte in 19:12, 0x01 in 11:5
        let guest = 0xFEE0_0000 | (0x2C << 12) | (0x01 << 5);
        assert_eq!(address(EXT, guest), Some((0x100 << 32) | 0xFEE2_C000));
        assert_eq!(address(X2APIC, guest), Some(guest), "not offered: left alone");
        assert_eq!(address(EXT, guest | 0x10), Some(guest | 0x10), "remappable format");
        assert_eq!(address(EXT, 0xFEE0_000C), Some(0xFEE0_000C), "bits 3:2 are not destination");
        let largest = 0xFEE0_0000 | (0xFF << 12) | (0x7F << 5);
        assert_eq!(address(EXT, largest), Some((0x7F00 << 32) | 0xFEEF_F000));
    }
}
