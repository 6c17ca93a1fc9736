/* SPDX-License-Identifier: Apache-2.0 */
#include "identity.h"

#include "error.h"
#include "scsi.h"
#include "sysfs.h"
#include "text.h"
#include "udevdb.h"
#include "waiting.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    PAGE_SERIAL_NUMBER = 0x80, /* SPC-4 section 7.8.15 */
    PAGE_DESIGNATORS = 0x83,   /* SPC-4 section 7.8.6 */
    INQUIRY_TIMEOUT_MS = 10000,
};

#define ANNOUNCE_AFTER UINT64_C(1000000000)

bool mp_identity_same_disk(const struct mp_identity *a, const struct mp_identity *b)
{
    return strcmp(a->wwid, b->wwid) == 0 && a->names_length == b->names_length &&
           memcmp(a->names, b->names, a->names_length) == 0;
}

/* ---- the WWID that only udev can tell ---- */

static bool is_believable(const struct mp_udevdb *entry, const struct mp_identity *identity,
                          uint64_t appeared_ns)
{
    if (entry->id_serial[0] == '\0')
        return false;
    return mp_lun_names_have(identity->names, identity->names_length, entry->id_serial) ||
           (appeared_ns != 0 && entry->initialized_us > appeared_ns / 1000);
}

static int ask_udev(const struct mp_host *host, const char *name, dev_t dev, int fd,
                    const struct mp_identity_terms *terms, struct mp_identity *identity,
                    struct manypath_error *err)
{
    uint64_t announce_ns = mp_now_ns() + ANNOUNCE_AFTER;
    struct mp_udevdb entry;

    flock(fd, LOCK_UN);
    for (;;) {
        int result = mp_udevdb_read(host->udev_data, dev, &entry);

        if (result == -EPROTO)
            return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, result,
                            "udev's ID_SERIAL of %s cannot be the name of a map", name);
        if (result == 0 && is_believable(&entry, identity, terms->appeared_ns))
            break;
        if (mp_now_ns() >= announce_ns) { /* an older udevd has skipped the locked disk for good */
            mp_scsi_announce(host->sysfs_root, name);
            announce_ns = UINT64_MAX;
        }
        /* udev tells its listeners only, and those need its library */
        if (!mp_wait_turn(terms->deadline_ns))
            return mp_error(
                err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, 0,
                "%s has no unambiguous NAA or EUI-64 name in page 0x83, so udev has to "
                "tell its WWID, and %s/b%u:%u has no ID_SERIAL %s; check that udevd runs",
                name, host->udev_data, major(dev), minor(dev),
                result == 0 && entry.id_serial[0] != '\0' ? "of this disk" : "yet");
    }
    if (terms->deadline_ns != 0)
        identity->locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    mp_copy(identity->wwid, sizeof identity->wwid, entry.id_serial);
    return 0;
}

/* ---- reading ---- */

static int read_page(int fd, const char *name, uint8_t code, uint8_t *page, size_t size,
                     size_t *ret_length, struct manypath_error *err)
{
    int result = mp_scsi_vpd(fd, code, page, size, INQUIRY_TIMEOUT_MS, ret_length);

    if (result < 0)
        return mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, result,
                        "%s does not answer INQUIRY for page 0x%02x: errno %d", name, code,
                        -result);
    return 0;
}

static int read_serial(int fd, const char *name, struct mp_identity *identity,
                       struct manypath_error *err)
{
    uint8_t page[MP_VPD_PAGE_SIZE];
    size_t length;
    int result = read_page(fd, name, PAGE_SERIAL_NUMBER, page, sizeof page, &length, err);

    if (result < 0)
        return result;
    result = mp_vpd80_serial(page, length, identity->serial);
    if (result < 0)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, result,
                        "%s has no serial number that can be read in page 0x80", name);
    return 0;
}

static int read_wwid(const struct mp_host *host, int fd, const char *name, dev_t dev,
                     const struct mp_identity_terms *terms, struct mp_identity *identity,
                     struct manypath_error *err)
{
    uint8_t page[MP_VPD_PAGE_SIZE];
    size_t length;
    int result = read_page(fd, name, PAGE_DESIGNATORS, page, sizeof page, &length, err);

    if (result < 0)
        return result;
    result = mp_vpd83_wwid(page, length, identity->wwid);
    if (result == -EOPNOTSUPP) {
        result = mp_vpd83_lun_names(page, length, identity->names, sizeof identity->names,
                                    &identity->names_length);
        if (result == 0)
            return ask_udev(host, name, dev, fd, terms, identity, err);
    }
    if (result < 0)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, result,
                        result == -ENODATA ? "%s has an empty number for its name in page 0x83, so "
                                             "it cannot be told from others"
                                           : "%s sent a malformed page 0x83",
                        name);
    return 0;
}

static int read_identity(const struct mp_host *host, int fd, const char *name, dev_t dev,
                         const struct mp_identity_terms *terms, struct mp_identity *ret_identity,
                         struct manypath_error *err)
{
    struct mp_identity identity = {.names_length = 0};
    int result = read_wwid(host, fd, name, dev, terms, &identity, err);

    if (result == 0 && terms->serial)
        result = read_serial(fd, name, &identity, err);
    if (result < 0)
        return result;
    result = mp_scsi_size(fd, &identity.size_bytes);
    if (result < 0 || identity.size_bytes == 0)
        return mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, result,
                        "%s has no readable capacity", name);
    *ret_identity = identity;
    return 0;
}

/* Weak so that a test without block devices can answer. */
__attribute__((weak)) bool mp_identity_check(int fd, dev_t dev)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISBLK(status.st_mode) && status.st_rdev == dev;
}

void mp_identity_close(int *fd)
{
    if (*fd < 0)
        return;
    flock(*fd, LOCK_UN);
    close(*fd);
    *fd = -1;
}

/* The opened disk; if it cannot be, or is not this device, a negative manypath_code. */
static int open_disk(const struct mp_host *host, const char *name, dev_t dev,
                     struct manypath_error *err)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/%s", host->dev_root, name) >= sizeof path)
        return mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, ENAMETOOLONG,
                        "%s is too long a path", host->dev_root);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return mp_error(err, errno == EACCES ? MANYPATH_E_PERMISSION : MANYPATH_E_DEVICE,
                        MANYPATH_PHASE_IDENTITY, errno, "cannot open %s: errno %d", path, errno);
    if (mp_identity_check(fd, dev))
        return fd;
    close(fd);
    return mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, ESTALE,
                    "%s is not the device that appeared; something else took its name", path);
}

static int open_and_read(const struct mp_host *host, const char *name, dev_t dev, bool lock,
                         const struct mp_identity_terms *terms, struct mp_identity *ret_identity,
                         int *ret_fd, struct manypath_error *err)
{
    int fd = open_disk(host, name, dev, err);

    if (fd < 0)
        return fd;
    /* refused: udev is at work already, and that is no harm */
    bool locked = lock && flock(fd, LOCK_EX | LOCK_NB) == 0;
    int result = read_identity(host, fd, name, dev, terms, ret_identity, err);

    if (result < 0) {
        mp_identity_close(&fd);
        return result;
    }
    if (ret_identity->names_length == 0) /* else it was let go of */
        ret_identity->locked = locked;
    *ret_fd = fd;
    return 0;
}

int mp_identity_open(const struct mp_host *host, const char *name, dev_t dev,
                     struct mp_identity *ret_identity, int *ret_fd, struct manypath_error *err)
{
    static const struct mp_identity_terms at_once;

    return open_and_read(host, name, dev, true, &at_once, ret_identity, ret_fd, err);
}

int mp_identity_learn(const struct mp_host *host, const char *name, dev_t dev,
                      const struct mp_identity_terms *terms, struct mp_identity *ret_identity,
                      int *ret_fd, struct manypath_error *err)
{
    return open_and_read(host, name, dev, true, terms, ret_identity, ret_fd, err);
}

int mp_identity_read(const struct mp_host *host, const char *name, dev_t dev,
                     struct mp_identity *ret_identity, struct manypath_error *err)
{
    static const struct mp_identity_terms at_once;
    int fd = -1;
    int result = open_and_read(host, name, dev, false, &at_once, ret_identity, &fd, err);

    mp_identity_close(&fd);
    return result;
}

int mp_identity_known(const struct mp_host *host, const char *name,
                      char ret_wwid[MANYPATH_WWID_SIZE])
{
    uint8_t page[MP_VPD_PAGE_SIZE];
    size_t length;
    int result = mp_sysfs_page83(host->sysfs_root, name, page, &length);

    ret_wwid[0] = '\0';
    if (result < 0 && result != -ENOENT && result != -EINVAL) /* -EINVAL: the kernel keeps none */
        return result;
    if (result == 0 && mp_vpd83_wwid(page, length, ret_wwid) < 0)
        ret_wwid[0] = '\0';
    return 0;
}

int mp_identity_names(const struct mp_host *host, const char *name, dev_t dev,
                      uint8_t ret_names[MP_LUN_NAMES_SIZE], size_t *ret_length)
{
    uint8_t page[MP_VPD_PAGE_SIZE];
    size_t length;
    int fd = open_disk(host, name, dev, NULL);

    if (fd < 0)
        return -ENODEV;
    int result = mp_scsi_vpd(fd, PAGE_DESIGNATORS, page, sizeof page, INQUIRY_TIMEOUT_MS, &length);

    close(fd);
    if (result < 0)
        return result;
    return mp_vpd83_lun_names(page, length, ret_names, MP_LUN_NAMES_SIZE, ret_length);
}
