/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The guest's way in, and the way into its interrupt handlers. */
#include "guest_abi.h"

	.section .text.start, "ax"
	.globl start
start:				/* RDI: the number of this CPU */
	mov	%rdi, %rax
	shl	$12, %rax
	lea	stacks + 4096(%rip), %rsp
	add	%rax, %rsp
	lgdt	gdt_pointer(%rip)
	xor	%ebp, %ebp
	call	guest_main
0:	hlt
	jmp	0b

	.text
interrupt:			/* the interrupt's number lies on top of the CPU's frame: 48 bytes */
	push	%rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11		/* 120 */
	mov	72(%rsp), %rdi
	sub	$8, %rsp	/* 128: aligned for C */
	call	guest_interrupt
	add	$8, %rsp
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$8, %rsp
	iretq

/* One entry every 16 bytes. Exceptions with an error code misalign the frame, but do not come back. */
	.globl interrupt_entries
	.balign	16
interrupt_entries:
	.set	number, 0
	.rept	256
	.balign	16
	push	$number
	jmp	interrupt
	.set	number, number + 1
	.endr

	.section .rodata
	.balign	8
gdt:	.quad	0
	.quad	0x00af9b000000ffff	/* GUEST_CS: 64-bit code */
	.quad	0x00cf93000000ffff	/* GUEST_DS: data */
gdt_pointer:
	.word	. - gdt - 1
	.quad	gdt

	.bss
	.balign	16
stacks:	.skip	4096 * NR_CPUS

	.section .note.GNU-stack, "", @progbits
