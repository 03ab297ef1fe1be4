/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How to find a message's GSI where messages go through routes: a table of 256 indexed by the message's vector, the others with that
 * vector spilled over into a chain behind it, against a hash of the whole message; and the library. All routes are there already:
 * what is measured is the look-up, alone and in front of KVM_IRQ_LINE. */
#include <linux/kvm.h>
#include <msiroute.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "bench.h"

#define FIRST_GSI    24
#define MAX_MESSAGES 4000
#define SENDS        (1 << 16)
#define ROUNDS       15

struct message { uint64_t address; uint32_t data; };
struct route { struct message message; uint32_t gsi; struct route *next; };

static struct message messages[MAX_MESSAGES];
static uint32_t n_messages, sequence[SENDS];
static struct route routes[MAX_MESSAGES];
static uint64_t probes;

static int is_same(const struct message *a, const struct message *b)
{
    probes++;
    return a->address == b->address && a->data == b->data;
}

/* ---- by vector ---- */

static struct route *by_vector[256];

static uint32_t find_by_vector(const struct message *message)
{
    struct route *route = by_vector[message->data & 0xFF];
    while (!is_same(&route->message, message))
        route = route->next;
    return route->gsi;
}

/* ---- by a hash of all of it ---- */

#define SLOTS 8192
static struct route *by_hash[SLOTS];

static uint32_t hash(const struct message *message)
{
    uint64_t bits = (message->address ^ message->data) * 0x9E3779B97F4A7C15u;
    return (uint32_t)((bits ^ bits >> 32) * 0x9E3779B97F4A7C15u >> 40) % SLOTS;
}

static uint32_t find_by_hash(const struct message *message)
{
    uint32_t at = hash(message);
    while (!is_same(&by_hash[at]->message, message))
        at = (at + 1) % SLOTS;
    return by_hash[at]->gsi;
}

/* ---- a guest ---- */

/* So many vectors on so many CPUs. Bits 31:16 of the data are ignored, so that messages for all of them reach the one vCPU. */
static void make_guest(uint32_t vectors, uint32_t cpus, int vm)
{
    static struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entries[MAX_MESSAGES]; } table;
    memset(by_vector, 0, sizeof(by_vector));
    memset(by_hash, 0, sizeof(by_hash));
    n_messages = vectors * cpus;
    for (uint32_t i = 0; i < n_messages; i++) {
        struct route *route = &routes[i];
        messages[i] = (struct message){ BENCH_ADDRESS, (i / vectors) << 16 | (32 + i % vectors) };
        *route = (struct route){ messages[i], FIRST_GSI + i, NULL };
        struct route **end = &by_vector[messages[i].data & 0xFF];
        while (*end)
            end = &(*end)->next;
        *end = route;
        uint32_t at = hash(&messages[i]);
        while (by_hash[at])
            at = (at + 1) % SLOTS;
        by_hash[at] = route;
        table.entries[i] = (struct kvm_irq_routing_entry){ .gsi = route->gsi, .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = { .address_lo = BENCH_ADDRESS, .data = messages[i].data } };
    }
    table.head.nr = n_messages;
    need(ioctl(vm, KVM_SET_GSI_ROUTING, &table) == 0, "KVM_SET_GSI_ROUTING");
    for (uint32_t i = 0; i < SENDS; i++) {
        sequence[i] = (uint32_t)((random_bits() >> 20) % n_messages);
    }
}

/* ---- what is measured ---- */

static int vm;
static struct msi_route_cache *cache;
static volatile uint32_t sink;

static void raise_gsi(uint32_t gsi)
{
    struct kvm_irq_level line = { .irq = gsi, .level = 1 };
    need(ioctl(vm, KVM_IRQ_LINE, &line) == 0, "KVM_IRQ_LINE");
}

static void bare(uint32_t m)           { raise_gsi(FIRST_GSI + m); }
static void vector_sends(uint32_t m)   { raise_gsi(find_by_vector(&messages[m])); }
static void hash_sends(uint32_t m)     { raise_gsi(find_by_hash(&messages[m])); }
static void vector_finds(uint32_t m)   { sink = find_by_vector(&messages[m]); }
static void hash_finds(uint32_t m)     { sink = find_by_hash(&messages[m]); }
static void library_sends(uint32_t m)
{
    need(msi_deliver_message(cache, MSIROUTE_NO_REQUESTER, messages[m].address, messages[m].data, 0) >= 0, "msi_deliver_message");
}

static const struct way { const char *name; void (*send)(uint32_t); } ways[] = {
    { "bare", bare },           { "vector", vector_sends }, { "hash", hash_sends },
    { "library", library_sends }, { "vector_lookup", vector_finds }, { "hash_lookup", hash_finds },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static void compare(const char *guest, uint32_t vectors, uint32_t cpus)
{
    static double times[WAYS][ROUNDS];
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    vm = bench_vm();
    make_guest(vectors, cpus, vm);
    config.vm_fd = bench_vm();
    config.flags = MSIROUTE_CACHE_NO_DIRECT;
    need(!msi_route_cache_new(&config, &cache), "cache");
    for (uint32_t turn = 0; turn < 4; turn++)       /* until the library has all of them in its table */
        for (uint32_t m = 0; m < n_messages; m++)
            library_sends(m);
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned w = 0; w < WAYS; w++) {
            uint64_t start = nanoseconds();
            for (uint32_t i = 0; i < SENDS; i++)
                ways[w].send(sequence[i]);
            times[w][round] = (double)(nanoseconds() - start) / SENDS;
        }
    double at = 0;
    for (unsigned w = 0; w < WAYS; w++) {
        double ns = median(times[w], ROUNDS);
        at = w == 0 ? ns : at;
        printf("index_%s_%u_%s_ns=%.1f\n", guest, n_messages, ways[w].name, ns);
        if (w > 0 && w < 4)
            printf("index_%s_%u_%s_ratio=%.3f\n", guest, n_messages, ways[w].name, ns / at);
    }
    for (unsigned w = 4; w < WAYS; w++) {
        probes = 0;
        for (uint32_t i = 0; i < SENDS; i++)
            ways[w].send(sequence[i]);
        printf("index_%s_%u_%s_probes=%.2f\n", guest, n_messages, ways[w].name, (double)probes / SENDS);
    }
    msi_route_cache_free(cache);
}

int main(void)
{
    /* A guest that uses a vector number once; and guests that, as Linux does, give out the same ones on every CPU. */
    compare("once", 200, 1);
    compare("every_cpu", 8, 25);
    compare("every_cpu", 8, 125);
    compare("every_cpu", 32, 125);
    return 0;
}
