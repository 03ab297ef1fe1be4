/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The guest of guest.c, copied to its memory at GUEST_CODE: counts its interrupts and sleeps. Real mode, plain
 * instructions. DS is the CPU's counters, one of 32 bits a vector; SS is 0. */
	.section .rodata
	.globl	guest_code, guest_main, guest_code_end
	.balign	16
	.code16
guest_code:			/* entry n, 8 bytes each, is vector n's handler */
	.set	number, 0
	.rept	256
	.balign	8
	pushw	$number
	jmp	count
	.set	number, number + 1
	.endr

count:
	push	%eax
	push	%ebx
	push	%ecx
	push	%edx
	mov	%sp, %bx
	mov	%ss:16(%bx), %bx
	shl	$2, %bx
	incl	(%bx)
	mov	$0x80b, %ecx	/* x2APIC: end of interrupt */
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
	pop	%edx
	pop	%ecx
	pop	%ebx
	pop	%eax
	add	$2, %sp
	iret

guest_main:
	sti
	hlt
	jmp	guest_main
guest_code_end:

	.section .note.GNU-stack, "", @progbits
