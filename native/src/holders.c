/* SPDX-License-Identifier: Apache-2.0 */
#include "holders.h"

#include "sysfs.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HOLDERS_MAX = 16 };

/* "dm-9 (vg-lv, LVM)" or "md0". */
static void add_foreign(const char *holder, const char *uuid, const char *dm_name,
                        struct mp_holders *holders)
{
    size_t used = strlen(holders->foreign);
    size_t size = sizeof holders->foreign - used;
    const char *separator = used > 0 ? ", " : "";

    if (dm_name[0] == '\0')
        snprintf(holders->foreign + used, size, "%s%s", separator, holder);
    else
        snprintf(holders->foreign + used, size, "%s%s (%s%s%.*s)", separator, holder, dm_name,
                 uuid[0] != '\0' ? ", " : "", (int)strcspn(uuid, "-"), uuid);
}

bool mp_holder_comes_or_goes(const char *holder, int result)
{
    return strncmp(holder, "dm-", 3) == 0 &&
           (result == -EIO || result == -EINVAL || result == -ENODEV || result == -ENOENT);
}

int mp_holders_read(const struct mp_host *host, const char *name, const char *wwid,
                    struct mp_holders *ret_holders)
{
    static const char prefix[] = "mpath-";
    struct mp_holders holders = {.map = ""};
    char names[HOLDERS_MAX][MANYPATH_DEVICE_SIZE];
    size_t count = 0;
    int result = mp_sysfs_holders(host->sysfs_root, name, names, HOLDERS_MAX, &count);

    if (result < 0)
        return result;
    for (size_t i = 0; i < count && i < HOLDERS_MAX; i++) {
        char uuid[MANYPATH_WWID_SIZE + sizeof prefix] = "";
        char dm_name[MANYPATH_WWID_SIZE] = "";

        result =
            mp_sysfs_dm(host->sysfs_root, names[i], uuid, sizeof uuid, dm_name, sizeof dm_name);
        if (mp_holder_comes_or_goes(names[i], result))
            continue;
        const char *of =
            strncmp(uuid, prefix, sizeof prefix - 1) == 0 ? uuid + sizeof prefix - 1 : NULL;

        if (of != NULL && holders.map[0] == '\0' && strcmp(of, wwid) == 0) {
            mp_copy(holders.map, sizeof holders.map, names[i]);
        } else if (of != NULL && holders.other_map[0] == '\0' && strcmp(of, wwid) != 0) {
            mp_copy(holders.other_map, sizeof holders.other_map, names[i]);
            mp_copy(holders.other_wwid, sizeof holders.other_wwid, of);
        } else {
            add_foreign(names[i], uuid, dm_name, &holders);
        }
    }
    *ret_holders = holders;
    return 0;
}

bool mp_disk_is_claimed(const struct mp_host *host, const char *name)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/%s", host->dev_root, name) >= sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_EXCL | O_CLOEXEC);

    if (fd < 0)
        return errno == EBUSY;
    close(fd);
    return false;
}
