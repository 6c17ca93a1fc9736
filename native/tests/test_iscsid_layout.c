/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/iscsid_layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

static char text[MP_ISCSID_LAYOUT_FILE_MAX + 64];
static char reason[200];
static struct mp_iscsid_layout parsed;

/* A layout of the table as text, as an operator would have it. One field may be replaced by a line
 * of the test ("" leaves it out). */
static size_t write_text(const struct mp_iscsid_layout *layout, const char *instead_of,
                         const char *line)
{
    size_t len = (size_t)snprintf(text, sizeof(text),
                                  "# made by a test\nname %s\nversions %s\nrequest_size %u\n"
                                  "static_discovery %d\n\n",
                                  layout->name, layout->versions, layout->request_size,
                                  layout->static_discovery);

    for (size_t i = 0; i < mp_iscsid_field_count; i++) {
        const struct mp_iscsid_field_info *field = &mp_iscsid_fields[i];
        struct mp_iscsid_slot slot = mp_iscsid_layout_slot(layout, field);

        if (instead_of != NULL && strcmp(field->name, instead_of) == 0)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s", line);
        else if (slot.width != 0)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s %u %u\n", field->name,
                                    slot.offset, slot.width);
    }
    return len;
}

static const struct mp_iscsid_layout *l5(void)
{
    return mp_iscsid_layout_find(NULL, 0, 16104);
}

static int parse(size_t len)
{
    reason[0] = '\0';
    return mp_iscsid_layout_parse(text, len, &parsed, reason, sizeof(reason));
}

static void expect_refused(size_t len, const char *want)
{
    CHECK_EQ(parse(len), -EINVAL);
    if (strstr(reason, want) == NULL)
        TEST_FAIL("reason is \"%s\", want \"%s\"", reason, want);
    CHECK(strstr(reason, want) != NULL);
}

static void expect_field_refused(const char *field, const char *line, const char *want)
{
    expect_refused(write_text(l5(), field, line), want);
}

TEST(table_has_the_known_sizes)
{
    static const uint32_t want[] = {5144,  8368,  8376,  8392,  8400,  8416,  8424,
                                    12856, 16080, 16088, 16104, 16112, 16128, 16136};
    uint32_t sizes[20];

    CHECK_EQ(mp_iscsid_layout_count, 14);
    CHECK_EQ(mp_iscsid_layout_sizes(NULL, 0, sizes, 20), 14);
    for (size_t i = 0; i < 14; i++) {
        CHECK_EQ(sizes[i], want[i]);
        CHECK_EQ(mp_iscsid_layouts[i].request_size, want[i]);
        CHECK(mp_iscsid_layout_find(NULL, 0, want[i]) == &mp_iscsid_layouts[i]);
    }
    CHECK(mp_iscsid_layout_find(NULL, 0, 16120) == NULL);
    CHECK_EQ(mp_iscsid_layout_sizes(NULL, 0, sizes, 3), 3);
    CHECK_STR(l5()->name, "L5-lp64-glibc");
    CHECK_STR(l5()->versions, "2.1.1-2.1.10");
    CHECK_EQ(l5()->address.width, 1025);
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 8392)->address.width, 255);
}

/* Facts 1.4: what came with which group. */
TEST(table_has_the_known_changes)
{
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16080)->scan.width, 0);
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16088)->scan.offset, 332);
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16088)->transport_name.offset, 14518); /* L4, not L3 */
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16088)->chap_algs.width, 0);
    CHECK_EQ(l5()->chap_algs.offset, 1372);
    CHECK_EQ(l5()->reopen_log_freq.width, 0);
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16112)->reopen_log_freq.offset, 2248);
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16128)->login_redirect_max.width, 0);
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16136)->login_redirect_max.offset, 328);
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16112)->static_discovery, 4);
    CHECK_EQ(mp_iscsid_layout_find(NULL, 0, 16128)->static_discovery, 3);
}

/* The table is checked by a script; the parser is stricter, so it has to like every entry. */
TEST(every_table_entry_parses_to_itself)
{
    for (size_t i = 0; i < mp_iscsid_layout_count; i++) {
        memset(&parsed, 0xee, sizeof(parsed));
        CHECK_EQ(parse(write_text(&mp_iscsid_layouts[i], NULL, NULL)), 0);
        CHECK(memcmp(&parsed, &mp_iscsid_layouts[i], sizeof(parsed)) == 0);
    }
}

TEST(optional_fields_may_be_absent)
{
    CHECK_EQ(parse(write_text(l5(), "ipaddress", "")), 0);
    CHECK_EQ(parsed.ipaddress.width, 0);
    CHECK_EQ(parse(write_text(l5(), "login_redirect_max", "")), 0);
    expect_field_refused("port", "", "no line for field 'port'");
}

TEST(field_lines_refused)
{
    expect_field_refused("port", "prt 3280 4\n", "line 46: unknown field 'prt'");
    expect_field_refused("port", "port 3280 4\nport 3280 4\n", "already given in line 46");
    expect_field_refused("port", "port 3280\n", "want 'port OFFSET WIDTH'");
    expect_field_refused("port", "port 3280 4 4\n", "want 'port OFFSET WIDTH'");
    expect_field_refused("port", "port 3280 4 4 4\n", "too many words");
    expect_field_refused("port", "port 03280 4\n", "plain decimal");
    expect_field_refused("port", "port +3280 4\n", "plain decimal");
    expect_field_refused("port", "port -4 4\n", "plain decimal");
    expect_field_refused("port", "port 0x10 4\n", "plain decimal");
    expect_field_refused("port", "port 99999999999999999999 4\n", "plain decimal");
    expect_field_refused("port", "port 65536 4\n", "plain decimal");
    expect_field_refused("port", "port 3280 8\n", "8 bytes wide, want 4 to 4");
    expect_field_refused("port", "port 3282 4\n", "not aligned");
    expect_field_refused("port", "port 16104 4\n", "behind the request of 16104 bytes");
    expect_field_refused("port", "port 65532 4\n", "behind the request");
    expect_field_refused("port", "port 4 4\n", "request's header");
    expect_field_refused("port", "port 3284 4\n", "overlaps");
    expect_field_refused("address", "address 2252 1029\n", "overlaps 'address'");
    expect_field_refused("address", "address 2252 63\n", "want 64 to 4096");
    expect_field_refused("password", "password 596 65535\n", "want 64 to 1024");
    expect_field_refused("sid", "sid 12 4\n", "'sid' has to be at 8");
}

TEST(key_lines_refused)
{
    size_t len = write_text(l5(), NULL, NULL);

    len += (size_t)snprintf(text + len, sizeof(text) - len, "request_size 16104\n");
    expect_refused(len, "already given in line 4");
    len = (size_t)snprintf(text, sizeof(text), "request_size 1020\n");
    expect_refused(len, "line 1: request_size: want");
    len = (size_t)snprintf(text, sizeof(text), "request_size 16106\n");
    expect_refused(len, "multiple of 4");
    len = (size_t)snprintf(text, sizeof(text), "request_size 65536\n");
    expect_refused(len, "multiple of 4");
    len = (size_t)snprintf(text, sizeof(text), "name\n");
    expect_refused(len, "want 'name' and one value");
    len = (size_t)snprintf(text, sizeof(text), "name a/b\n");
    expect_refused(len, "want only");
    len = (size_t)snprintf(text, sizeof(text), "name 01234567890123456789012345678901\n");
    expect_refused(len, "1 to 31");
    len = (size_t)snprintf(text, sizeof(text), "static_discovery 256\n");
    expect_refused(len, "0 to 255");
    expect_refused(0, "no line 'name'");
    len = (size_t)snprintf(text, sizeof(text), "name a\nversions b\nstatic_discovery 3\n");
    expect_refused(len, "no line 'request_size'");
}

TEST(bytes_refused)
{
    memcpy(text, "name a\r\n", 8);
    expect_refused(8, "line 1: byte 0x0d");
    memcpy(text, "# \0\n", 4);
    expect_refused(4, "line 1: byte 0x00");
    memcpy(text, "#\n# \xc3\xa4", 6);
    expect_refused(6, "line 2: byte 0xc3");
    memset(text, '\n', sizeof(text));
    expect_refused(MP_ISCSID_LAYOUT_FILE_MAX + 1, "longer than");
    expect_refused(MP_ISCSID_LAYOUT_FILE_MAX, "no line 'name'");
}

TEST(refusal_leaves_the_output)
{
    struct mp_iscsid_layout before;

    memset(&parsed, 0x77, sizeof(parsed));
    before = parsed;
    CHECK_EQ(parse(write_text(l5(), "port", "")), -EINVAL);
    CHECK(memcmp(&before, &parsed, sizeof(parsed)) == 0);
    CHECK_EQ(mp_iscsid_layout_parse("x", 1, &parsed, NULL, 0), -EINVAL);
    CHECK_EQ(mp_iscsid_layout_parse("x", 1, &parsed, reason, 4), -EINVAL);
    CHECK_EQ(strlen(reason), 3);
}

TEST(comments_and_blanks)
{
    CHECK_EQ(parse(write_text(l5(), "port", "  port\t 3280   4#x\n \t\n")), 0);
    CHECK_EQ(parsed.port.offset, 3280);
    CHECK_EQ(parse(write_text(l5(), NULL, NULL) - 1), 0); /* no newline at the end */
}

static char directory[] = "/tmp/mp-layout-test-XXXXXX";

static void put_file(const char *name, size_t len, mode_t mode)
{
    char path[200];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, text, len), (ssize_t)len);
    CHECK_EQ(fchmod(fd, mode), 0);
    close(fd);
}

static void drop_file(const char *name)
{
    char path[200];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    CHECK_EQ(unlink(path), 0);
}

static int load(struct mp_iscsid_layout *layouts, size_t max, size_t *refused)
{
    reason[0] = '\0';
    return mp_iscsid_layout_load_dir(directory, geteuid(), layouts, max, refused, reason,
                                     sizeof(reason));
}

static size_t sized_text(uint32_t size)
{
    struct mp_iscsid_layout layout = *l5();

    layout.request_size = size;
    return write_text(&layout, NULL, NULL);
}

TEST(directory_good_files)
{
    struct mp_iscsid_layout layouts[4];
    uint32_t sizes[32];
    size_t refused = 9;

    CHECK_EQ(mp_iscsid_layout_load_dir("/nonexistent/mp", 0, layouts, 4, &refused, NULL, 0), 0);
    CHECK_EQ(refused, 0);
    put_file("b.layout", sized_text(16200), 0644);
    put_file("a.layout", sized_text(17000), 0600);
    put_file("README", 3, 0666);
    put_file(".hidden.layout", 3, 0644);
    CHECK_EQ(load(layouts, 4, &refused), 2);
    CHECK_EQ(refused, 0);
    CHECK_EQ(layouts[0].request_size, 17000);
    CHECK_EQ(layouts[1].request_size, 16200);
    CHECK_EQ(mp_iscsid_layout_sizes(layouts, 2, sizes, 32), 16);
    CHECK_EQ(sizes[14], 16200);
    CHECK_EQ(sizes[15], 17000);
    CHECK(mp_iscsid_layout_find(layouts, 2, 16200) == &layouts[1]);
    CHECK_EQ(load(layouts, 1, &refused), 1);
    CHECK_EQ(refused, 1);
    CHECK_STR(reason, "b.layout: too many layouts");
    layouts[0].request_size = 16104; /* an operator's layout wins over ours */
    CHECK(mp_iscsid_layout_find(layouts, 1, 16104) == &layouts[0]);
    CHECK_EQ(mp_iscsid_layout_sizes(layouts, 1, sizes, 32), 14);
    drop_file("README");
    drop_file(".hidden.layout");
}

TEST(directory_bad_files)
{
    struct mp_iscsid_layout layouts[4];
    char path[200];
    size_t refused;

    put_file("a.layout", sized_text(17000), 0620);
    CHECK_EQ(load(layouts, 4, &refused), 1);
    CHECK_EQ(refused, 1);
    CHECK_STR(reason, "a.layout: writable by group or others");
    put_file("a.layout", sized_text(17000), 0602);
    CHECK_EQ(load(layouts, 4, &refused), 1);
    put_file("a.layout", sized_text(16200), 0644);
    CHECK_EQ(load(layouts, 4, &refused), 1);
    CHECK_STR(reason, "b.layout: another file has the same request_size");
    memcpy(text, "name x\nbogus 1 1\n", 17);
    put_file("a.layout", 17, 0644);
    CHECK_EQ(load(layouts, 4, &refused), 1);
    CHECK_STR(reason, "a.layout: line 2: unknown field 'bogus'");
    memset(text, '\n', sizeof(text));
    put_file("a.layout", MP_ISCSID_LAYOUT_FILE_MAX + 1, 0644);
    CHECK_EQ(load(layouts, 4, &refused), 1);
    CHECK_STR(reason, "a.layout: longer than 65536 bytes");
    drop_file("a.layout");
    snprintf(path, sizeof(path), "%s/a.layout", directory);
    CHECK_EQ(mkfifo(path, 0600), 0);
    CHECK_EQ(load(layouts, 4, &refused), 1);
    CHECK_STR(reason, "a.layout: not a regular file");
    drop_file("a.layout");
}

TEST(directory_itself)
{
    struct mp_iscsid_layout layouts[4];
    size_t refused = 7;

    CHECK_EQ(mp_iscsid_layout_load_dir(directory, geteuid() + 1, layouts, 4, &refused, reason,
                                       sizeof(reason)),
             -EPERM);
    CHECK(strstr(reason, "wrong owner") != NULL);
    CHECK_EQ(chmod(directory, 0777), 0);
    CHECK_EQ(load(layouts, 4, &refused), -EPERM);
    CHECK(strstr(reason, "writable by group or others") != NULL);
    CHECK_EQ(refused, 7);
    CHECK_EQ(chmod(directory, 0700), 0);
    drop_file("b.layout");
    CHECK_EQ(load(layouts, 4, &refused), 0);
}

int main(void)
{
    if (mkdtemp(directory) == NULL)
        return 1;
    RUN(table_has_the_known_sizes);
    RUN(table_has_the_known_changes);
    RUN(every_table_entry_parses_to_itself);
    RUN(optional_fields_may_be_absent);
    RUN(field_lines_refused);
    RUN(key_lines_refused);
    RUN(bytes_refused);
    RUN(refusal_leaves_the_output);
    RUN(comments_and_blanks);
    RUN(directory_good_files);
    RUN(directory_bad_files);
    RUN(directory_itself);
    rmdir(directory);
    return test_end();
}
