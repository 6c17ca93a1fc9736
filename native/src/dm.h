/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device-mapper ioctls (kernel include/uapi/linux/dm-ioctl.h). Interface version 4.0.0 is sent
 * always; buffers grow on BUFFER_FULL up to a ceiling. Maps are addressed by uuid after creation: a
 * name may be changed by multipathd at any time. Every function may block: call from a worker.
 * Returns 0 or a negative errno; -ENXIO: no such map.
 */
#ifndef MP_DM_H
#define MP_DM_H

#include <manypath/manypath.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { MP_DM_NAME_SIZE = 128, MP_DM_UUID_SIZE = 129 };

/* udev flags, the upper half of the cookie (libdm libdevmapper.h DM_UDEV_*); base 0 needs no
 * semaphore. */
enum {
    MP_DM_UDEV_DISABLE_LIBRARY_FALLBACK = 0x0020,
    MP_DM_UDEV_PRIMARY_SOURCE = 0x0040,
    MP_DM_UDEV_MPATH_RELOAD = 0x0100, /* SUBSYSTEM_FLAG0, multipath-tools MPATH_UDEV_RELOAD_FLAG */
    MP_DM_UDEV_NO_KPARTX = 0x0200,    /* SUBSYSTEM_FLAG1, MPATH_UDEV_NO_KPARTX_FLAG */
};

struct mp_dm_info {
    char name[MP_DM_NAME_SIZE];
    char uuid[MP_DM_UUID_SIZE];
    dev_t dev;
    int32_t open_count;
    uint32_t event_nr;
    bool active_table;
    bool inactive_table;
    bool suspended;
};

/* Opens /dev/mapper/control (path given) and checks the interface version. The descriptor may be
 * shared by threads. -ENOENT/-ENODEV: no device-mapper; -EACCES. */
int mp_dm_open(const char *control_path, int *ret_fd);

/* True if the kernel has (or could load) this target type; DM_GET_TARGET_VERSION, else
 * LIST_VERSIONS. */
int mp_dm_has_target(int fd, const char *type, bool *ret_has);

/* CREATE; -EBUSY: the name or the uuid exists. */
int mp_dm_create(int fd, const char *name, const char *uuid, dev_t *ret_dev);
/* LOAD one target spanning the whole device into the inactive slot. */
int mp_dm_load(int fd, const char *uuid, uint64_t sectors, const char *type, const char *params,
               bool read_only);
/* RESUME: swaps the inactive table in. `udev_flags` are MP_DM_UDEV_*. `reload`: keep I/O queued,
 * leave file systems unfrozen: NOFLUSH, SKIP_LOCKFS. */
int mp_dm_resume(int fd, const char *uuid, uint32_t udev_flags, bool reload);
/* REMOVE; -EBUSY while open. */
int mp_dm_remove(int fd, const char *uuid, uint32_t udev_flags);
/* The same at once, or when the last one who has it open closes it. */
int mp_dm_remove_deferred(int fd, const char *uuid, uint32_t udev_flags);

int mp_dm_info(int fd, const char *uuid, struct mp_dm_info *ret_info);
int mp_dm_info_by_dev(int fd, dev_t dev, struct mp_dm_info *ret_info);

/* First target's type and parameters (TABLE) or status text; malloc'ed *ret_params. NOFLUSH always.
 * -ENODATA: the map has no table. */
int mp_dm_table(int fd, const char *uuid, char ret_type[16], char **ret_params);
int mp_dm_status(int fd, const char *uuid, char ret_type[16], char **ret_params);

/* Devices the active table uses. malloc'ed, NULL when none. */
int mp_dm_deps(int fd, const char *uuid, dev_t **ret_devs, size_t *ret_count);

/* TARGET_MSG to sector 0. -EBUSY while suspended. */
int mp_dm_message(int fd, const char *uuid, const char *message);

/* Every map whose uuid begins with `uuid_prefix` ("" for all); malloc'ed. */
int mp_dm_list(int fd, const char *uuid_prefix, struct mp_dm_info **ret_maps, size_t *ret_count);

/* ---- inside dm.c; here for tests and fuzzers ---- */

/* The only ioctl call of dm.c; `argument` is a struct dm_ioctl. Weak: a test may answer instead of
 * the kernel. 0 or a negative errno. */
int mp_dm_ioctl(int fd, unsigned long request, void *argument);

/* One record of the list of maps. */
struct mp_dm_record {
    dev_t dev;
    char name[MP_DM_NAME_SIZE];
    char uuid[MP_DM_UUID_SIZE]; /* "" if it has none, or if !uuid_known */
    bool uuid_known;            /* kernels before 5.13 do not tell */
};

/* Decoders of what the kernel put into a buffer of `size` bytes, header first. Pure. -EPROTO: an
 * offset or a string leaves the buffer. Outputs are malloc'ed, NULL when there is nothing. */
int mp_dm_decode_list(const void *reply, size_t size, struct mp_dm_record **ret_records,
                      size_t *ret_count);
int mp_dm_decode_deps(const void *reply, size_t size, dev_t **ret_devs, size_t *ret_count);
int mp_dm_decode_target(const void *reply, size_t size, char ret_type[16], char **ret_params);
int mp_dm_decode_versions(const void *reply, size_t size, const char *type, bool *ret_has);

#endif
