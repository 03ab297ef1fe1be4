/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The guest, as it goes into guest memory. */
	.section .rodata
	.globl guest_image, guest_image_end
	.balign	16
guest_image:
	.incbin	"guest.bin"
guest_image_end:

	.section .note.GNU-stack, "", @progbits
