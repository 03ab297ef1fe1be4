/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Interrupts that somebody else raises, through an eventfd bound to a vector. */
#include <fcntl.h>
#include <unistd.h>

#include "rig.h"

#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL

static void another_process_raises_the_vector_of_each_vcpu(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x42)));
    int first = rig_bound(&rig, 0, 0), second = rig_bound(&rig, 1, 0);
    expect_eq(info_of(rig.dev, 0).eventfds, 1);
    expect(info_of(rig.dev, 0).flags & IN_KERNEL);
    signal_from_another_process(first, 1);
    expect_arrival(&rig, 0, 0x41);
    signal_from_another_process(second, 3);
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
}

static void a_blocking_eventfd_never_makes_the_library_wait(enum host host)
{
    RIG(rig, host);
    int fd = rig_eventfd(&rig, 0);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    expect_ok(msi_vector_mask(rig.dev, 0));
    expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
    expect_eq(msi_vector_clear_pending(rig.dev, 0), 0);
    expect_ok(msi_vector_unmask(rig.dev, 0));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_vector_mask(rig.dev, 0));
    signal_from_another_process(fd, 5);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);      /* its flags are the owner's */
}

static void several_eventfds_raise_one_vector(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fds[3];
    for (unsigned i = 0; i < 3; i++)
        fds[i] = rig_bound(&rig, 0, 0);
    expect_eq(info_of(rig.dev, 0).eventfds, 3);
    for (unsigned i = 0; i < 3; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, 1, 0x41);
    }
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fds[1]));
    fires(&rig, fds[1]);
    expect_quiet(&rig);
    fires(&rig, fds[0]);
    expect_arrival(&rig, 1, 0x41);
    fires(&rig, fds[2]);
    expect_arrival(&rig, 1, 0x41);
    expect_eq(info_of(rig.dev, 0).eventfds, 2);
}

static void delivering_works_beside_an_eventfd(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_delivers(&rig, 0, 1, 0x41);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
}

static void what_is_counted_before_bind_is_one_interrupt(enum host host)
{
    RIG(rig, host);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    add_to_eventfd(fd, 7);
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
    expect_ok(msi_vector_mask(rig.dev, 0));
    expect_eq(msi_vector_is_pending(rig.dev, 0), 0);    /* it was delivered: nothing is left over */
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_quiet(&rig);
}

static void an_eventfd_bound_first_is_armed_when_the_vector_goes_live(enum host host)
{
    RIG(rig, host);
    int fd = rig_bound(&rig, 0, 0);
    expect_eq(info_of(rig.dev, 0).flags, 0);
    fires(&rig, fd);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_arrival(&rig, 1, 0x41);
    expect(info_of(rig.dev, 0).flags & IN_KERNEL);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
}

static void what_it_counts_while_masked_stays_in_it_when_unbound(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_vector_mask(rig.dev, 0));
    add_to_eventfd(fd, 3);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect_eq(take_count(fd), 3);
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_quiet(&rig);
}

static void after_unbind_no_message_comes_by_it(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0), other = rig_bound(&rig, 0, 0);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(take_count(fd), 1);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, -1));   /* all that are left */
    fires(&rig, other);
    expect_quiet(&rig);
    expect_eq(info_of(rig.dev, 0).eventfds, 0);
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

static void set_while_bound_moves_the_eventfd_to_the_new_message(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
    for (unsigned i = 0; i < 20; i++) {
        expect_ok(msi_vector_set(rig.dev, 0, TO(i % 2, 0x50 + i)));
        fires(&rig, fd);
        expect_arrival(&rig, i % 2, 0x50 + i);
        expect_quiet(&rig);
    }
}

static void set_of_one_vector_leaves_the_message_to_the_other_that_shares_it(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(0, 0x41)));
    int moves = rig_bound(&rig, 0, 0), stays = rig_bound(&rig, 1, 0);
    expect_eq(info_of(rig.dev, 0).gsi, info_of(rig.dev, 1).gsi);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x42)));
    fires(&rig, moves);
    expect_arrival(&rig, 1, 0x42);
    fires(&rig, stays);
    expect_arrival(&rig, 0, 0x41);
    expect_quiet(&rig);
}

static void clearing_the_message_unbinds_and_keeps_what_comes(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_vector_clear(rig.dev, 0));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x42)));
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
}

/* ---- descriptors ---- */

static void the_VMM_may_close_its_descriptor_after_bind(enum host host)
{
    RIG(rig, host);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), writer = dup(fd);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    close(fd);
    fires(&rig, writer);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_vector_mask(rig.dev, 0));
    fires(&rig, writer);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_arrival(&rig, 1, 0x41);
    close(writer);
}

static void a_bound_eventfd_is_duplicated_close_on_exec_and_closed_at_unbind(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int warm_up = rig_bound(&rig, 0, 0);                    /* whatever a first bind opens for good */
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, warm_up));
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    unsigned before = open_descriptors();
    int duplicate = dup(fd);
    close(duplicate);                                       /* the number that the library will get */
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    expect_eq(open_descriptors(), before + 1);
    expect_eq(fcntl(duplicate, F_GETFD), FD_CLOEXEC);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect_eq(open_descriptors(), before);
}

static void a_lent_eventfd_takes_no_descriptor(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    int warm_up = rig_bound(&rig, 1, MSIROUTE_EVENTFD_BORROWED);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 1, warm_up));
    unsigned before = open_descriptors();
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, MSIROUTE_EVENTFD_BORROWED));
    expect_eq(open_descriptors(), before);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_vector_mask(rig.dev, 0));
    fires(&rig, fd);
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect(fcntl(fd, F_GETFD) >= 0);                        /* and stays open */
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, another_process_raises_the_vector_of_each_vcpu),
        TEST(EVERYWHERE, a_blocking_eventfd_never_makes_the_library_wait),
        TEST(EVERYWHERE, several_eventfds_raise_one_vector),
        TEST(EVERYWHERE, delivering_works_beside_an_eventfd),
        TEST(EVERYWHERE, what_is_counted_before_bind_is_one_interrupt),
        TEST(EVERYWHERE, an_eventfd_bound_first_is_armed_when_the_vector_goes_live),
        TEST(EVERYWHERE, what_it_counts_while_masked_stays_in_it_when_unbound),
        TEST(EVERYWHERE, after_unbind_no_message_comes_by_it),
        TEST(EVERYWHERE, set_while_bound_moves_the_eventfd_to_the_new_message),
        TEST(EVERYWHERE, set_of_one_vector_leaves_the_message_to_the_other_that_shares_it),
        TEST(EVERYWHERE, clearing_the_message_unbinds_and_keeps_what_comes),
        TEST(EVERYWHERE, the_VMM_may_close_its_descriptor_after_bind),
        TEST(ON_KVM | ON_FAKE, a_bound_eventfd_is_duplicated_close_on_exec_and_closed_at_unbind),
        TEST(ON_KVM | ON_FAKE, a_lent_eventfd_takes_no_descriptor),
    };
    return TAP_MAIN(tests);
}
