/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The library as a plugin's: loaded by name, used, and let go, again and again. Not linked with it, nor with what the other tests
 * share. Arguments: the library, and its version map. */
#include <dlfcn.h>
#include <dirent.h>
#include <errno.h>
#include <msiroute.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static const char *library, *map;
static int failed;
#define expect(condition) ((condition) ? 0 : (failed++, printf("# line %d: %s\n", __LINE__, #condition)))

static unsigned entries_of(const char *folder)
{
    unsigned n = 0;
    DIR *dir = opendir(folder);
    while (dir && readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static int received;

static int guest(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)opaque, (void)requester, (void)address;
    received += data == 0x41;
    return 1;
}

/* What is called, by the types of the header. */
struct api {
    __typeof__(&msi_route_cache_new) cache_new;
    __typeof__(&msi_route_cache_free) cache_free;
    __typeof__(&msi_route_cache_last_error) last_error;
    __typeof__(&msi_device_new) device_new;
    __typeof__(&msi_device_free) device_free;
    __typeof__(&msi_vector_set) vector_set;
    __typeof__(&msi_deliver) deliver;
};

static void *load(struct api *api)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        expect(!"dlopen");
        printf("# %s\n", dlerror());
        return NULL;
    }
    struct { const char *name; void *where; } functions[] = {
        { "msi_route_cache_new", &api->cache_new }, { "msi_route_cache_free", &api->cache_free },
        { "msi_route_cache_last_error", &api->last_error }, { "msi_device_new", &api->device_new },
        { "msi_device_free", &api->device_free }, { "msi_vector_set", &api->vector_set }, { "msi_deliver", &api->deliver },
    };
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        void *function = dlsym(handle, functions[i].name);
        expect(function);
        memcpy(functions[i].where, &function, sizeof(function));
    }
    return handle;
}

static void use(const struct api *api)
{
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device_config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *cache;
    struct msi_device *dev;
    ops.signal = guest;
    config.flags = MSIROUTE_CACHE_MODEL;
    config.ops = &ops;
    device_config.vectors = 1;
    received = 0;
    expect(api->cache_new(&config, &cache) == 0);
    expect(api->device_new(cache, &device_config, &dev) == 0);
    expect(api->vector_set(dev, 0, 0xFEE00000, 0x41) == 0);
    expect(api->deliver(dev, 0) == MSIROUTE_SENT && received == 1);
    api->device_free(dev);
    api->cache_free(cache);
}

static void every_function_has_its_version(void)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    char line[128], version[64] = "", name[64];
    unsigned n = 0;
    FILE *file = fopen(map, "r");
    while (file && fgets(line, sizeof(line), file)) {
        if (!strncmp(line, "MSIROUTE_", 9))
            sscanf(line, "%63s", version);
        else if (sscanf(line, " %63[a-z0-9_];", name) == 1 && !strncmp(name, "msi_", 4)) {
            n++;
            if (expect(dlvsym(handle, name, version)))
                printf("# %s@%s\n", name, version);
        }
    }
    expect(n > 50);
    expect(!dlsym(handle, "rust_eh_personality"));
    if (file)
        fclose(file);
    dlclose(handle);
}

static void it_comes_and_goes_without_a_trace(void)
{
    struct api api;
    void *handle = load(&api);
    use(&api);
    dlclose(handle);
    unsigned descriptors = entries_of("/proc/self/fd"), threads = entries_of("/proc/self/task");
    for (int i = 0; i < 50 && !failed; i++) {
        handle = load(&api);
        use(&api);
        dlclose(handle);
    }
    expect(entries_of("/proc/self/fd") == descriptors);
    expect(entries_of("/proc/self/task") == threads);
}

static pthread_barrier_t barrier;

/* Leaves a text behind, which is the thread's own. */
static void *fail_and_outlive_it(void *opaque)
{
    const struct api *api = opaque;
    expect(api->deliver(NULL, 0) == -EINVAL && api->last_error()[0]);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);     /* it is closed now */
    return NULL;
}

static void a_thread_that_used_it_may_end_after_it_was_closed(void)
{
    struct api api;
    pthread_t thread;
    void *handle = load(&api);
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&thread, NULL, fail_and_outlive_it, &api);
    pthread_barrier_wait(&barrier);
    dlclose(handle);
    pthread_barrier_wait(&barrier);
    expect(pthread_join(thread, NULL) == 0);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(void); } tests[] = {
        { "every function has its version", every_function_has_its_version },
        { "it comes and goes without a trace", it_comes_and_goes_without_a_trace },
        { "a thread that used it may end after it was closed", a_thread_that_used_it_may_end_after_it_was_closed },
    };
    int bad = argc != 3;
    library = argv[1];
    map = argv[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..3\n");
    for (size_t i = 0; i < 3 && !bad; i++) {
        failed = 0;
        tests[i].run();
        printf("%s %zu - %s\n", failed ? "not ok" : "ok", i + 1, tests[i].name);
        bad |= failed;
    }
    return bad != 0;
}
