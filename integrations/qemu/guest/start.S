/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ways in: from the boot loader, from CPU 1's start-up, from interrupts. Long mode, memory mapped one to one. */
#include "layout.h"

#define MULTIBOOT_MAGIC     0x1badb002
#define MULTIBOOT_ADDRESSES 0x10000 /* the header says where what is loaded: a flat image */

#define MSR_EFER            0xc0000080

	.section .start, "ax"
	.code32
header:
	.long	MULTIBOOT_MAGIC, MULTIBOOT_ADDRESSES, -(MULTIBOOT_MAGIC + MULTIBOOT_ADDRESSES)
	.long	header, header, 0, image_end, start

/* From 32-bit or 16-bit code to that of 64 bits at `where`. EAX, ECX and EDX are lost. */
.macro	enter_long_mode where
	mov	$0x20, %eax		/* CR4: PAE */
	mov	%eax, %cr4
	mov	$page_tables, %eax
	mov	%eax, %cr3
	mov	$MSR_EFER, %ecx
	mov	$0x100, %eax		/* LME */
	xor	%edx, %edx
	wrmsr
	mov	$0x80000001, %eax	/* CR0: paging, protected mode */
	mov	%eax, %cr0
	ljmpl	$CODE_SEGMENT, $\where
.endm

	.globl	start
start:				/* EBX: multiboot's information */
	cli
	lgdt	gdt_pointer
	mov	$page_tables + 0x2000, %edi	/* 2048 pages of 2 MiB, whose four tables lie in a row */
	mov	$0x83, %eax		/* present, writable, large */
	mov	$2048, %ecx
1:	mov	%eax, (%edi)
	movl	$0, 4(%edi)
	add	$8, %edi
	add	$0x200000, %eax
	loop	1b
	enter_long_mode first

	.code16
	.globl	trampoline, trampoline_end
trampoline:			/* copied to TRAMPOLINE; CS is there */
	cli
	lgdtl	%cs:gdt_pointer - trampoline
	enter_long_mode second
	.balign	4
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
trampoline_end:

	.text
	.code64
first:
	mov	$stacks + STACK_SIZE, %rsp
	call	load_segments
	mov	%ebx, %edi
	call	main

second:
	mov	$stacks + 2 * STACK_SIZE, %rsp
	call	load_segments
	call	second_main

load_segments:
	mov	$DATA_SEGMENT, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	ret

interrupt:			/* its number lies on top of the CPU's frame */
	push	%rax
	push	%rcx
	push	%rdx
	mov	$0x802, %ecx	/* x2APIC ID: asked, so it is the CPU the message went to */
	rdmsr
	shl	$8, %eax
	mov	24(%rsp), %rcx
	add	%ecx, %eax
	incl	MAILBOX(, %rax, 4)
	cmp	$32, %ecx
	jb	exception
	cmp	$VECTOR_SPURIOUS, %ecx
	je	1f
	mov	$0x80b, %ecx	/* x2APIC EOI */
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
1:	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$8, %rsp
	iretq
exception:
	lea	24(%rsp), %rdi
	and	$-16, %rsp
	call	panic_exception

	.globl	interrupt_entries
	.balign	16
interrupt_entries:		/* 16 bytes each */
	.set	number, 0
	.rept	256
	.balign	16
	push	$number
	jmp	interrupt
	.set	number, number + 1
	.endr

	.data
	.balign	8
gdt:	.quad	0
	.quad	0x00af9b000000ffff
	.quad	0x00cf93000000ffff
gdt_end:

	.balign	4096
page_tables:
	.quad	page_tables + 0x1003
	.skip	0xff8
	.set	table, 2
	.rept	4
	.quad	page_tables + 0x1000 * table + 3
	.set	table, table + 1
	.endr
	.skip	0xfe0
	.skip	0x4000

	.bss
	.balign	16
stacks:	.skip	STACK_SIZE * NR_CPUS

	.section .note.GNU-stack, "", @progbits
