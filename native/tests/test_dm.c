/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's side of the ioctls is a list of expected calls with canned answers; a call that is
 * not expected, or that never comes, fails the test.
 */
#include "../src/dm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "test.h"

enum { FD = 42, K16 = 16 * 1024, HEADER = sizeof(struct dm_ioctl) };

struct step {
    unsigned long request;
    /* expected */
    const char *name, *uuid;
    uint64_t dev;
    uint32_t flags, event_nr, target_count;
    size_t size; /* data_size; 0: the header alone */
    const void *sent;
    size_t sent_size; /* payload that must have been sent */
    /* answered */
    int result;
    uint32_t out_flags, out_event_nr, out_target_count, out_major;
    int32_t out_open_count;
    uint64_t out_dev;
    const char *out_name, *out_uuid;
    const void *payload;
    size_t payload_size;
    size_t needs; /* BUFFER_FULL with less */
    size_t told;  /* data_size told, if not the truth */
};

static const struct step *steps;
static size_t step_count, step_at;

static void expect(const struct dm_ioctl *header, const unsigned char *bytes,
                   const struct step *step)
{
    CHECK_EQ(header->version[0], 4);
    CHECK_EQ(header->version[1], 0);
    CHECK_EQ(header->version[2], 0);
    CHECK_EQ(header->data_size, step->size != 0 ? step->size : HEADER);
    CHECK_EQ(header->data_start, HEADER);
    CHECK_STR(header->name, step->name != NULL ? step->name : "");
    CHECK_STR(header->uuid, step->uuid != NULL ? step->uuid : "");
    CHECK_EQ(header->dev, step->dev);
    CHECK_EQ(header->flags, step->flags);
    CHECK_EQ(header->event_nr, step->event_nr);
    CHECK_EQ(header->target_count, step->target_count);
    if (step->sent != NULL)
        CHECK(memcmp(bytes + HEADER, step->sent, step->sent_size) == 0);
}

/* As ctl_ioctl(): the version comes back always, the rest on success only, data_size bytes of
 * it. */
int mp_dm_ioctl(int fd, unsigned long request, void *argument)
{
    struct dm_ioctl header;

    if (step_at >= step_count) {
        TEST_FAIL("a call that nobody expected");
        return -EIO;
    }
    const struct step *step = &steps[step_at++];

    memcpy(&header, argument, sizeof header);
    CHECK(fd == FD || request == DM_VERSION);
    CHECK_EQ(request, step->request);
    expect(&header, argument, step);
    header.version[0] = step->out_major != 0 ? step->out_major : 4;
    header.version[1] = 48;
    memcpy(argument, header.version, sizeof header.version);
    if (step->result < 0)
        return step->result;
    header.flags = step->out_flags;
    header.event_nr = step->out_event_nr;
    header.target_count = step->out_target_count;
    header.open_count = step->out_open_count;
    header.dev = step->out_dev;
    if (step->out_name != NULL)
        memcpy(header.name, step->out_name, strnlen(step->out_name, sizeof header.name));
    if (step->out_uuid != NULL)
        memcpy(header.uuid, step->out_uuid, strnlen(step->out_uuid, sizeof header.uuid));
    if (header.data_size < step->needs) {
        header.flags |= DM_BUFFER_FULL_FLAG;
        header.data_size = offsetof(struct dm_ioctl, data);
    } else {
        memcpy((unsigned char *)argument + HEADER, step->payload != NULL ? step->payload : "",
               step->payload_size);
        header.data_size = step->payload_size != 0 ? (uint32_t)(HEADER + step->payload_size)
                                                   : offsetof(struct dm_ioctl, data);
    }
    if (step->told != 0)
        header.data_size = (uint32_t)step->told;
    memcpy(argument, &header, offsetof(struct dm_ioctl, data));
    return 0;
}

static void begin(const struct step *list, size_t count)
{
    steps = list;
    step_count = count;
    step_at = 0;
}

#define BEGIN(list) begin(list, sizeof(list) / sizeof(list)[0])
#define END() CHECK_EQ(step_at, step_count)

#define UUID "mpath-36001405abc"

TEST(open_version)
{
    const struct step good[] = {{.request = DM_VERSION}};
    const struct step refused[] = {{.request = DM_VERSION, .result = -EINVAL, .out_major = 5}};
    const struct step other[] = {{.request = DM_VERSION, .out_major = 3}};
    const struct step denied[] = {{.request = DM_VERSION, .result = -EACCES}};
    int fd = -7;

    BEGIN(good);
    CHECK_EQ(mp_dm_open("/dev/null", &fd), 0);
    END();
    CHECK(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    close(fd);
    fd = -7;
    BEGIN(refused);
    CHECK_EQ(mp_dm_open("/dev/null", &fd), -EPROTONOSUPPORT);
    END();
    BEGIN(other);
    CHECK_EQ(mp_dm_open("/dev/null", &fd), -EPROTONOSUPPORT);
    END();
    BEGIN(denied);
    CHECK_EQ(mp_dm_open("/dev/null", &fd), -EACCES);
    END();
    CHECK_EQ(mp_dm_open("/nowhere/control", &fd), -ENOENT);
    CHECK_EQ(fd, -7);
}

TEST(create)
{
    /* kernel huge_encode_dev(253:300) */
    const struct step good[] = {{.request = DM_DEV_CREATE,
                                 .name = "36001405abc",
                                 .uuid = UUID,
                                 .out_dev = 44 | 253 << 8 | 256 << 12}};
    const struct step busy[] = {
        {.request = DM_DEV_CREATE, .name = "n", .uuid = UUID, .result = -EBUSY}};
    char text[200];
    dev_t dev = 1;

    BEGIN(good);
    CHECK_EQ(mp_dm_create(FD, "36001405abc", UUID, &dev), 0);
    END();
    CHECK(dev == makedev(253, 300));
    BEGIN(busy);
    CHECK_EQ(mp_dm_create(FD, "n", UUID, &dev), -EBUSY);
    END();
    begin(NULL, 0);
    CHECK_EQ(mp_dm_create(FD, "", UUID, &dev), -EINVAL);
    CHECK_EQ(mp_dm_create(FD, "a/b", UUID, &dev), -EINVAL);
    CHECK_EQ(mp_dm_create(FD, "a", "", &dev), -EINVAL);
    memset(text, 'a', sizeof text);
    text[128] = '\0';
    CHECK_EQ(mp_dm_create(FD, text, UUID, &dev), -EINVAL);
    text[128] = 'a';
    text[129] = '\0';
    CHECK_EQ(mp_dm_create(FD, "a", text, &dev), -EINVAL);
    CHECK(dev == makedev(253, 300));
}

TEST(load)
{
    struct {
        struct dm_target_spec spec;
        char params[16];
    } sent = {.spec = {.length = 2048, .next = 40 + 16, .target_type = "multipath"},
              .params = "0 0 0 0 abcdefg"};
    const struct step good[] = {{.request = DM_TABLE_LOAD,
                                 .uuid = UUID,
                                 .target_count = 1,
                                 .size = HEADER + sizeof sent,
                                 .sent = &sent,
                                 .sent_size = sizeof sent}};
    const struct step read_only[] = {{.request = DM_TABLE_LOAD,
                                      .uuid = UUID,
                                      .flags = DM_READONLY_FLAG,
                                      .target_count = 1,
                                      .size = HEADER + 40 + 8,
                                      .result = -EBUSY}};

    BEGIN(good);
    CHECK_EQ(mp_dm_load(FD, UUID, 2048, "multipath", sent.params, false), 0);
    END();
    BEGIN(read_only);
    CHECK_EQ(mp_dm_load(FD, UUID, 1, "multipath", "0 0 0 0", true), -EBUSY);
    END();
    begin(NULL, 0);
    CHECK_EQ(mp_dm_load(FD, "", 1, "multipath", "", true), -EINVAL);
    CHECK_EQ(mp_dm_load(FD, UUID, 1, "", "", true), -EINVAL);
    CHECK_EQ(mp_dm_load(FD, UUID, 0, "multipath", "", true), -EINVAL);
    CHECK_EQ(mp_dm_load(FD, UUID, 1, "a_type_of_16_byt", "", true), -EINVAL);
}

TEST(resume)
{
    const struct step first[] = {{.request = DM_DEV_SUSPEND, .uuid = UUID, .event_nr = 0x600000}};
    const struct step reload[] = {
        {.request = DM_DEV_SUSPEND,
         .uuid = UUID,
         .flags = DM_NOFLUSH_FLAG | DM_SKIP_LOCKFS_FLAG,
         .event_nr = 0x1600000,
         .result = -EINTR},
        {.request = DM_DEV_SUSPEND,
         .uuid = UUID,
         .flags = DM_NOFLUSH_FLAG | DM_SKIP_LOCKFS_FLAG,
         .event_nr = 0x1600000,
         .result = -EINTR},
        {.request = DM_DEV_SUSPEND,
         .uuid = UUID,
         .flags = DM_NOFLUSH_FLAG | DM_SKIP_LOCKFS_FLAG,
         .event_nr = 0x1600000},
    };
    const struct step gone[] = {{.request = DM_DEV_SUSPEND, .uuid = UUID, .result = -ENXIO}};

    BEGIN(first);
    CHECK_EQ(mp_dm_resume(FD, UUID, MP_DM_UDEV_DISABLE_LIBRARY_FALLBACK | MP_DM_UDEV_PRIMARY_SOURCE,
                          false),
             0);
    END();
    BEGIN(reload);
    CHECK_EQ(mp_dm_resume(FD, UUID,
                          MP_DM_UDEV_DISABLE_LIBRARY_FALLBACK | MP_DM_UDEV_PRIMARY_SOURCE |
                              MP_DM_UDEV_MPATH_RELOAD,
                          true),
             0);
    END();
    BEGIN(gone);
    CHECK_EQ(mp_dm_resume(FD, UUID, 0, false), -ENXIO);
    END();
    begin(NULL, 0);
    CHECK_EQ(mp_dm_resume(FD, UUID, 0x10000, false), -EINVAL);
}

TEST(remove)
{
    const struct step good[] = {{.request = DM_DEV_REMOVE, .uuid = UUID, .event_nr = 0x600000}};
    const struct step busy[] = {{.request = DM_DEV_REMOVE, .uuid = UUID, .result = -EBUSY}};

    BEGIN(good);
    CHECK_EQ(mp_dm_remove(FD, UUID, 0x60), 0);
    END();
    BEGIN(busy);
    CHECK_EQ(mp_dm_remove(FD, UUID, 0), -EBUSY);
    END();
}

TEST(info)
{
    char endless[MP_DM_UUID_SIZE];
    struct mp_dm_info info = {0};

    memset(endless, 'x', sizeof endless);

    const struct step list[] = {{.request = DM_DEV_STATUS,
                                 .uuid = UUID,
                                 .out_flags = DM_ACTIVE_PRESENT_FLAG | DM_SUSPEND_FLAG,
                                 .out_dev = 7 | 253 << 8,
                                 .out_open_count = 2,
                                 .out_event_nr = 9,
                                 .out_name = "mpatha",
                                 .out_uuid = UUID},
                                {.request = DM_DEV_STATUS,
                                 .dev = 44 | 253 << 8 | 256 << 12,
                                 .out_flags = DM_INACTIVE_PRESENT_FLAG,
                                 .out_name = endless,
                                 .out_uuid = endless},
                                {.request = DM_DEV_STATUS, .uuid = UUID, .result = -ENXIO}};

    BEGIN(list);
    CHECK_EQ(mp_dm_info(FD, UUID, &info), 0);
    CHECK_STR(info.name, "mpatha");
    CHECK_STR(info.uuid, UUID);
    CHECK(info.dev == makedev(253, 7));
    CHECK_EQ(info.open_count, 2);
    CHECK_EQ(info.event_nr, 9);
    CHECK(info.active_table && !info.inactive_table && info.suspended);
    CHECK_EQ(mp_dm_info_by_dev(FD, makedev(253, 300), &info), 0);
    CHECK_EQ(strlen(info.name), MP_DM_NAME_SIZE - 1);
    CHECK_EQ(strlen(info.uuid), MP_DM_UUID_SIZE - 1);
    CHECK(!info.active_table && info.inactive_table && !info.suspended);
    CHECK_EQ(mp_dm_info(FD, UUID, &info), -ENXIO);
    CHECK(info.inactive_table);
    END();
}

static const struct {
    struct dm_target_spec spec;
    char params[48];
} one_target = {.spec = {.length = 2048, .target_type = "multipath"},
                .params = "0 0 1 1 service-time 0 1 2 8:16 1 1 "};

TEST(table_and_status)
{
    const struct step list[] = {{.request = DM_TABLE_STATUS,
                                 .uuid = UUID,
                                 .flags = DM_NOFLUSH_FLAG | DM_STATUS_TABLE_FLAG,
                                 .size = K16,
                                 .out_target_count = 1,
                                 .payload = &one_target,
                                 .payload_size = sizeof one_target},
                                {.request = DM_TABLE_STATUS,
                                 .uuid = UUID,
                                 .flags = DM_NOFLUSH_FLAG,
                                 .size = K16,
                                 .out_target_count = 0},
                                {.request = DM_TABLE_STATUS,
                                 .uuid = UUID,
                                 .flags = DM_NOFLUSH_FLAG,
                                 .size = K16,
                                 .result = -ENXIO}};
    char type[16] = "", *params = NULL;

    BEGIN(list);
    CHECK_EQ(mp_dm_table(FD, UUID, type, &params), 0);
    CHECK_STR(type, "multipath");
    CHECK_STR(params != NULL ? params : "", one_target.params);
    free(params);
    params = NULL;
    CHECK_EQ(mp_dm_status(FD, UUID, type, &params), -ENODATA);
    CHECK_EQ(mp_dm_status(FD, UUID, type, &params), -ENXIO);
    CHECK(params == NULL);
    END();
}

TEST(buffer_grows)
{
    const struct step list[] = {
        {.request = DM_TABLE_STATUS,
         .uuid = UUID,
         .flags = DM_NOFLUSH_FLAG,
         .size = K16,
         .needs = 40000},
        {.request = DM_TABLE_STATUS,
         .uuid = UUID,
         .flags = DM_NOFLUSH_FLAG,
         .size = 2 * K16,
         .needs = 40000},
        {.request = DM_TABLE_STATUS,
         .uuid = UUID,
         .flags = DM_NOFLUSH_FLAG,
         .size = 4 * K16,
         .needs = 40000,
         .out_target_count = 1,
         .payload = &one_target,
         .payload_size = sizeof one_target},
    };
    char type[16] = "", *params = NULL;

    BEGIN(list);
    CHECK_EQ(mp_dm_status(FD, UUID, type, &params), 0);
    END();
    free(params);
}

TEST(buffer_ceiling)
{
    struct step list[11];
    dev_t *devs = NULL;
    size_t count = 3;

    for (size_t i = 0; i < 11; i++)
        list[i] = (struct step){
            .request = DM_TABLE_DEPS, .uuid = UUID, .size = (size_t)K16 << i, .needs = SIZE_MAX};
    BEGIN(list); /* 16 KiB to 16 MiB, and no further */
    CHECK_EQ(mp_dm_deps(FD, UUID, &devs, &count), -EOVERFLOW);
    END();
    CHECK(devs == NULL && count == 3);
}

TEST(deps)
{
    const struct {
        uint32_t count, padding;
        uint64_t dev[2];
    } two = {.count = 2, .dev = {16 | 8 << 8, 44 | 65 << 8 | 256 << 12}}, none = {0},
      lie = {.count = 3};
    const struct step list[] = {
        {.request = DM_TABLE_DEPS, .uuid = UUID, .size = K16, .payload = &two, .payload_size = 24},
        {.request = DM_TABLE_DEPS, .uuid = UUID, .size = K16, .payload = &none, .payload_size = 8},
        {.request = DM_TABLE_DEPS, .uuid = UUID, .size = K16}, /* no table at all */
        {.request = DM_TABLE_DEPS, .uuid = UUID, .size = K16, .payload = &lie, .payload_size = 24},
    };
    dev_t *devs = NULL;
    size_t count = 9;

    BEGIN(list);
    CHECK_EQ(mp_dm_deps(FD, UUID, &devs, &count), 0);
    CHECK_EQ(count, 2);
    CHECK(devs[0] == makedev(8, 16));
    CHECK(devs[1] == makedev(65, 300));
    free(devs);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(mp_dm_deps(FD, UUID, &devs, &count), 0);
        CHECK(devs == NULL && count == 0);
    }
    count = 9;
    CHECK_EQ(mp_dm_deps(FD, UUID, &devs, &count), -EPROTO);
    CHECK_EQ(count, 9);
    END();
}

TEST(message)
{
    static const char sent[] = "\0\0\0\0\0\0\0\0fail_path 8:16";
    const struct step list[] = {
        {.request = DM_TARGET_MSG,
         .uuid = UUID,
         .size = HEADER + 8 + 16,
         .sent = sent,
         .sent_size = sizeof sent},
        {.request = DM_TARGET_MSG, .uuid = UUID, .size = HEADER + 8 + 16, .result = -EBUSY}};
    static char endless[5000];

    BEGIN(list);
    CHECK_EQ(mp_dm_message(FD, UUID, "fail_path 8:16"), 0);
    CHECK_EQ(mp_dm_message(FD, UUID, "fail_path 8:16"), -EBUSY);
    memset(endless, 'a', sizeof endless - 1);
    CHECK_EQ(mp_dm_message(FD, UUID, endless), -EINVAL);
    CHECK_EQ(mp_dm_message(FD, UUID, ""), -EINVAL);
    END();
}

/* ---- the list of maps ---- */

static unsigned char list_bytes[4096];
static size_t list_size, list_last;

static void put(size_t at, const void *bytes, size_t size)
{
    memcpy(list_bytes + at, bytes, size);
}

static size_t aligned(size_t at)
{
    return (at + 7) / 8 * 8;
}

static void list_begin(void)
{
    memset(list_bytes, 0, sizeof list_bytes);
    list_size = 0;
    list_last = SIZE_MAX;
}

/* One record as the kernel writes it; uuid NULL: none; words false: as before Linux 5.13. */
static void list_add(uint64_t dev, const char *name, const char *uuid, bool words)
{
    size_t at = list_size;
    size_t after = aligned(at + 12 + strlen(name) + 1);
    uint32_t flags = !words ? 0 : uuid != NULL ? 1 : 2;

    if (list_last != SIZE_MAX) {
        uint32_t next = (uint32_t)(at - list_last);

        put(list_last + 8, &next, sizeof next);
    }
    put(at, &dev, sizeof dev);
    put(at + 12, name, strlen(name) + 1);
    put(after + 4, &flags, sizeof flags);
    after += 8;
    if (words && uuid != NULL) {
        put(after, uuid, strlen(uuid) + 1);
        after = aligned(after + strlen(uuid) + 1);
    }
    list_last = at;
    list_size = after;
}

/* A reply around the list, to be decoded without an ioctl. */
static int decode(size_t size, struct mp_dm_record **records, size_t *count)
{
    static unsigned char reply[HEADER + sizeof list_bytes];
    struct dm_ioctl header = {.data_size = (uint32_t)(HEADER + size), .data_start = HEADER};

    memcpy(reply, &header, sizeof header);
    memcpy(reply + HEADER, list_bytes, size);
    /* an exact copy on the heap, so that a sanitizer sees a read beyond it */
    unsigned char *exact = malloc(HEADER + size);

    memcpy(exact, reply, HEADER + size);
    int r = mp_dm_decode_list(exact, HEADER + size, records, count);

    free(exact);
    return r;
}

TEST(list_records)
{
    struct mp_dm_record *records = NULL;
    size_t count = 0;

    list_begin();
    list_add(1 | 253 << 8, "root", "LVM-abc", true);
    list_add(2 | 253 << 8, "a", NULL, true);
    list_add(3 | 253 << 8, "mpatha", UUID, true);
    CHECK_EQ(decode(list_size, &records, &count), 0);
    CHECK_EQ(count, 3);
    CHECK_STR(records[0].name, "root");
    CHECK_STR(records[0].uuid, "LVM-abc");
    CHECK(records[0].uuid_known && records[0].dev == makedev(253, 1));
    CHECK_STR(records[1].uuid, "");
    CHECK(records[1].uuid_known);
    CHECK_STR(records[2].uuid, UUID);
    free(records);

    list_begin();
    list_add(1 | 253 << 8, "old", NULL, false);
    list_add(2 | 253 << 8, "kernel", NULL, false);
    CHECK_EQ(decode(list_size, &records, &count), 0);
    CHECK_EQ(count, 2);
    CHECK(!records[0].uuid_known && !records[1].uuid_known);
    free(records);

    /* older still: nothing behind the last name */
    CHECK_EQ(decode(list_last + 12 + sizeof "kernel", &records, &count), 0);
    CHECK_EQ(count, 2);
    free(records);
}

TEST(list_empty)
{
    struct mp_dm_record one, *records = &one;
    size_t count = 5;

    list_begin();
    CHECK_EQ(decode(0, &records, &count), 0);
    CHECK(records == NULL && count == 0);
    count = 5;
    CHECK_EQ(decode(16, &records, &count), 0); /* dev 0 */
    CHECK_EQ(count, 0);
}

TEST(list_hostile)
{
    static const uint32_t jumps[] = {1, 8, 12, 17, 4000, 0x7fffffff, 0xffffffff, 0xfffffff8};
    struct mp_dm_record one, *records = &one;
    size_t count = 5;

    for (size_t i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
        list_begin();
        list_add(1 | 253 << 8, "root", "LVM-abc", true);
        list_add(2 | 253 << 8, "next", "LVM-def", true);
        put(8, &jumps[i], sizeof jumps[i]);
        CHECK_EQ(decode(list_size, &records, &count), -EPROTO);
    }
    list_begin(); /* a name, then a uuid, without its end */
    list_add(1 | 253 << 8, "root", "LVM-abc", true);
    for (size_t size = 1; size < list_size; size++) {
        bool whole = size >= 17 && size < 32; /* an old kernel's record ends behind the name */

        CHECK_EQ(decode(size, &records, &count), whole ? 0 : -EPROTO);
        if (!whole)
            continue;
        CHECK(count == 1 && !records[0].uuid_known);
        free(records);
        records = &one;
        count = 5;
    }
    memset(list_bytes + 12, 'n', 200); /* a name of more than 127 bytes */
    CHECK_EQ(decode(400, &records, &count), -EPROTO);
    list_begin();
    list_add(1 | 253 << 8, "root", "LVM-abc", true);
    memset(list_bytes + 32, 'u', 200);
    CHECK_EQ(decode(400, &records, &count), -EPROTO);
    CHECK(records == &one && count == 5);
}

TEST(reply_hostile)
{
    struct dm_ioctl header = {.data_size = HEADER, .data_start = HEADER, .target_count = 1};
    unsigned char reply[HEADER + 64] = {0};
    struct mp_dm_record *records;
    char type[16], *params = NULL;
    dev_t *devs;
    size_t count;
    bool has;

    CHECK_EQ(mp_dm_decode_list(reply, HEADER - 1, &records, &count), -EPROTO);
    CHECK_EQ(mp_dm_decode_list(reply, 0, &records, &count), -EPROTO);
    memcpy(reply, &header, sizeof header);
    CHECK_EQ(mp_dm_decode_target(reply, sizeof reply, type, &params), -EPROTO);
    header.data_size = UINT32_MAX; /* more than there is */
    header.data_start = UINT32_MAX;
    memcpy(reply, &header, sizeof header);
    CHECK_EQ(mp_dm_decode_list(reply, sizeof reply, &records, &count), -EPROTO);
    CHECK_EQ(mp_dm_decode_deps(reply, sizeof reply, &devs, &count), -EPROTO);
    CHECK_EQ(mp_dm_decode_target(reply, sizeof reply, type, &params), -EPROTO);
    CHECK_EQ(mp_dm_decode_versions(reply, sizeof reply, "x", &has), -EPROTO);
    header.data_start = 8; /* inside the header */
    memcpy(reply, &header, sizeof header);
    CHECK_EQ(mp_dm_decode_list(reply, sizeof reply, &records, &count), -EPROTO);
    header.data_start = HEADER;
    memcpy(reply, &header, sizeof header);
    memset(reply + HEADER, 'x', 64); /* neither the type nor the text ends */
    CHECK_EQ(mp_dm_decode_target(reply, sizeof reply, type, &params), -EPROTO);
    reply[HEADER + 30] = '\0';
    CHECK_EQ(mp_dm_decode_target(reply, sizeof reply, type, &params), -EPROTO);
    CHECK_EQ(mp_dm_decode_versions(reply, sizeof reply, "x", &has), -EPROTO);
    CHECK(params == NULL);
    reply[HEADER + 63] = '\0';
    CHECK_EQ(mp_dm_decode_target(reply, sizeof reply, type, &params), 0);
    CHECK_STR(type, "xxxxxx");
    free(params);
}

/* Maps that cannot be meant are not asked about; one that vanished, or has a new owner, is left
 * out. */
TEST(list)
{
    struct mp_dm_info *maps = NULL;
    size_t count = 0;

    list_begin();
    list_add(1 | 253 << 8, "root", "LVM-abc", true);
    list_add(2 | 253 << 8, "mpatha", UUID, true);
    list_add(3 | 253 << 8, "mpathb", "mpath-2", true);
    list_add(4 | 253 << 8, "mpathc", "mpath-3", true);
    list_add(5 | 253 << 8, "unknown", NULL, false);
    list_add(6 | 253 << 8, "unknown2", NULL, false);

    const struct step calls[] = {
        {.request = DM_LIST_DEVICES,
         .uuid = "mpath-",
         .flags = DM_UUID_FLAG,
         .size = K16,
         .payload = list_bytes,
         .payload_size = list_size},
        {.request = DM_DEV_STATUS,
         .dev = 2 | 253 << 8,
         .out_dev = 2 | 253 << 8,
         .out_flags = DM_ACTIVE_PRESENT_FLAG,
         .out_open_count = 1,
         .out_name = "mpatha",
         .out_uuid = UUID},
        {.request = DM_DEV_STATUS, .dev = 3 | 253 << 8, .result = -ENXIO},
        {.request = DM_DEV_STATUS, .dev = 4 | 253 << 8, .out_name = "x", .out_uuid = "LVM-new"},
        {.request = DM_DEV_STATUS, .dev = 5 | 253 << 8, .out_name = "y", .out_uuid = "mpath-5"},
        {.request = DM_DEV_STATUS, .dev = 6 | 253 << 8, .out_name = "z"},
    };

    BEGIN(calls);
    CHECK_EQ(mp_dm_list(FD, "mpath-", &maps, &count), 0);
    END();
    CHECK_EQ(count, 2);
    CHECK_STR(maps[0].name, "mpatha");
    CHECK_EQ(maps[0].open_count, 1);
    CHECK(maps[0].active_table && maps[0].dev == makedev(253, 2));
    CHECK_STR(maps[1].uuid, "mpath-5");
    free(maps);

    const struct step nothing[] = {
        {.request = DM_LIST_DEVICES, .flags = DM_UUID_FLAG, .size = K16},
        {.request = DM_LIST_DEVICES, .flags = DM_UUID_FLAG, .size = K16, .result = -EACCES}};

    BEGIN(nothing);
    CHECK_EQ(mp_dm_list(FD, "", &maps, &count), 0);
    CHECK(maps == NULL && count == 0);
    count = 8;
    CHECK_EQ(mp_dm_list(FD, "", &maps, &count), -EACCES);
    CHECK_EQ(count, 8);
    END();
}

/* ---- target types ---- */

TEST(has_target)
{
    static const struct {
        uint32_t next, version[3];
        char name[16];
        uint32_t next2, version2[3];
        char name2[16];
    } versions = {32, {1, 9, 0}, "linear", 0, {1, 14, 0}, "multipath"};
    const struct step present[] = {{.request = DM_GET_TARGET_VERSION,
                                    .name = "multipath",
                                    .size = K16,
                                    .payload = &versions,
                                    .payload_size = 32}};
    const struct step absent[] = {
        {.request = DM_GET_TARGET_VERSION, .name = "multipath", .size = K16, .result = -EINVAL}};
    const struct step old[] = {
        {.request = DM_GET_TARGET_VERSION, .name = "multipath", .size = K16, .result = -ENOTTY},
        {.request = DM_LIST_VERSIONS, .size = K16, .payload = &versions, .payload_size = 64},
        {.request = DM_GET_TARGET_VERSION, .name = "multi", .size = K16, .result = -ENOTTY},
        {.request = DM_LIST_VERSIONS, .size = K16, .payload = &versions, .payload_size = 64},
        {.request = DM_GET_TARGET_VERSION, .name = "zero", .size = K16, .result = -ENOTTY},
        {.request = DM_LIST_VERSIONS, .size = K16},
    };
    const struct step denied[] = {
        {.request = DM_GET_TARGET_VERSION, .name = "multipath", .size = K16, .result = -EACCES}};
    bool has = false;

    BEGIN(present);
    CHECK_EQ(mp_dm_has_target(FD, "multipath", &has), 0);
    CHECK(has);
    END();
    BEGIN(absent);
    CHECK_EQ(mp_dm_has_target(FD, "multipath", &has), 0);
    CHECK(!has);
    END();
    BEGIN(old);
    CHECK_EQ(mp_dm_has_target(FD, "multipath", &has), 0);
    CHECK(has);
    CHECK_EQ(mp_dm_has_target(FD, "multi", &has), 0);
    CHECK(!has);
    has = true;
    CHECK_EQ(mp_dm_has_target(FD, "zero", &has), 0);
    CHECK(!has);
    END();
    has = true;
    BEGIN(denied);
    CHECK_EQ(mp_dm_has_target(FD, "multipath", &has), -EACCES);
    CHECK(has);
    CHECK_EQ(mp_dm_has_target(FD, "", &has), -EINVAL);
    CHECK_EQ(mp_dm_has_target(FD, "a_type_of_16_byt", &has), -EINVAL);
    END();
}

int main(void)
{
    RUN(open_version);
    RUN(create);
    RUN(load);
    RUN(resume);
    RUN(remove);
    RUN(info);
    RUN(table_and_status);
    RUN(buffer_grows);
    RUN(buffer_ceiling);
    RUN(deps);
    RUN(message);
    RUN(list_records);
    RUN(list_empty);
    RUN(list_hostile);
    RUN(reply_hostile);
    RUN(list);
    RUN(has_target);
    return test_end();
}
