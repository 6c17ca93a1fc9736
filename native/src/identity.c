/* SPDX-License-Identifier: Apache-2.0 */
#include "identity.h"

#include "error.h"
#include "scsi.h"
#include "vpd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE_DESIGNATORS = 0x83, /* SPC-4 section 7.8.6 */
    PAGE_BYTES = 4096,
    INQUIRY_TIMEOUT_MS = 10000,
};

static int read_identity(int fd, const char *name, struct mp_identity *ret_identity,
                         struct manypath_error *err)
{
    struct mp_identity identity;
    uint8_t page[PAGE_BYTES];
    size_t length;
    int result = mp_scsi_vpd(fd, PAGE_DESIGNATORS, page, sizeof page, INQUIRY_TIMEOUT_MS, &length);

    if (result < 0)
        return mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, result,
                        "%s does not answer INQUIRY for page 0x83: errno %d", name, -result);
    result = mp_vpd83_wwid(page, length, identity.wwid);
    if (result < 0)
        return mp_error(err, MANYPATH_E_IDENTITY, MANYPATH_PHASE_IDENTITY, result,
                        result == -EOPNOTSUPP ? "%s has no unambiguous NAA or EUI-64 name in page "
                                                "0x83, so it cannot be told from others"
                                              : "%s sent a malformed page 0x83",
                        name);
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

static int open_and_read(const struct mp_host *host, const char *name, dev_t dev, bool lock,
                         struct mp_identity *ret_identity, int *ret_fd, struct manypath_error *err)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/%s", host->dev_root, name) >= sizeof path)
        return mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, ENAMETOOLONG,
                        "%s is too long a path", host->dev_root);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return mp_error(err, errno == EACCES ? MANYPATH_E_PERMISSION : MANYPATH_E_DEVICE,
                        MANYPATH_PHASE_IDENTITY, errno, "cannot open %s: errno %d", path, errno);
    if (lock)
        flock(fd, LOCK_EX | LOCK_NB); /* refused: udev is at work already, and that is no harm */
    int result = 0;

    if (!mp_identity_check(fd, dev))
        result = mp_error(err, MANYPATH_E_DEVICE, MANYPATH_PHASE_IDENTITY, ESTALE,
                          "%s is not the device that appeared; something else took its name", path);
    if (result == 0)
        result = read_identity(fd, name, ret_identity, err);
    if (result < 0)
        mp_identity_close(&fd);
    else
        *ret_fd = fd;
    return result;
}

int mp_identity_open(const struct mp_host *host, const char *name, dev_t dev,
                     struct mp_identity *ret_identity, int *ret_fd, struct manypath_error *err)
{
    return open_and_read(host, name, dev, true, ret_identity, ret_fd, err);
}

int mp_identity_read(const struct mp_host *host, const char *name, dev_t dev,
                     struct mp_identity *ret_identity, struct manypath_error *err)
{
    int fd = -1;
    int result = open_and_read(host, name, dev, false, ret_identity, &fd, err);

    mp_identity_close(&fd);
    return result;
}
