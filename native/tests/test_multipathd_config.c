/* SPDX-License-Identifier: Apache-2.0 */
#include "../src/multipathd_config.h"

#include <errno.h>
#include <stdlib.h>

#include "test.h"

static struct mp_config_subject subject;

static void reset(void)
{
    subject = (struct mp_config_subject){.wwid = "36001405aaaa",
                                         .devnode = "sdb",
                                         .vendor = "LIO-ORG",
                                         .product = "block disk",
                                         .protocol = "scsi:iscsi"};
}

/* The rule that matches, "" if none does. */
static const char *rule_of(const char *text)
{
    static char rule[128];
    struct mp_multipathd_config *config = NULL;
    int r = mp_multipathd_config_parse(text, &config);

    if (r < 0)
        return config != NULL ? "touched" : r == -E2BIG ? "E2BIG" : "another error";
    rule[0] = '\0';
    if (!mp_multipathd_blacklists(config, &subject, rule, sizeof rule))
        CHECK_STR(rule, "");
    mp_multipathd_config_free(config);
    return rule;
}

#define LIST(text) "blacklist {\n" text "}\n"
#define EXCEPT(text) "blacklist_exceptions {\n" text "}\n"

TEST(kinds)
{
    reset();
    CHECK_STR(rule_of(LIST("\twwid \"^36001405\"\n")), "wwid \"^36001405\"");
    CHECK_STR(rule_of(LIST("\twwid 36001405aaaa\n")), "wwid \"36001405aaaa\"");
    CHECK_STR(rule_of(LIST("\twwid \"^36001406\"\n")), "");
    CHECK_STR(rule_of(LIST("\tdevnode \"^sd[a-c]\"\n")), "devnode \"^sd[a-c]\"");
    CHECK_STR(rule_of(LIST("\tprotocol \"scsi:(iscsi|fcp)\"\n")), "protocol \"scsi:(iscsi|fcp)\"");
    CHECK_STR(rule_of(LIST("\tproperty \".*\"\n")), "");
    CHECK_STR(rule_of(LIST("\twwid \".*\"\n")), "wwid \".*\"");
    CHECK_STR(rule_of(LIST("\twwid \"*\"\n")), ""); /* multipathd shows it as .* */
}

TEST(devices)
{
    reset();
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tvendor \"LIO\"\n\t\tproduct \"disk$\"\n\t}\n")),
              "device { vendor \"LIO\" product \"disk$\" }");
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tvendor \"LIO\"\n\t\tproduct \"tape\"\n\t}\n")), "");
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tvendor \"ACME\"\n\t\tproduct \"disk\"\n\t}\n")), "");
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tproduct \"disk\"\n\t}\n")),
              "device { product \"disk\" }");
    CHECK_STR(rule_of(LIST("\tdevice {\n\t}\n")), "");
    /* a key of a device counts in a device only */
    CHECK_STR(rule_of(LIST("\tvendor \"LIO\"\n")), "");
    CHECK_STR(rule_of("devices {\n\tdevice {\n\t\tvendor \"LIO\"\n\t}\n}\n"), "");
    /* what multipathd prints of a device without a product lacks an end */
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tvendor \"LIO\"\n") "devices {\n}\n"),
              "device { vendor \"LIO\" }");
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tvendor \"ACME\"\n") EXCEPT("\twwid \"b\"\n")
                          LIST("\twwid \"a\"\n")),
              "wwid \"a\"");
}

TEST(negation)
{
    reset();
    CHECK_STR(rule_of(LIST("\tdevnode \"!^(sd[a-z]|nvme[0-9])\"\n")), "");
    CHECK_STR(rule_of(LIST("\tdevnode \"!^nvme\"\n")), "devnode \"!^nvme\"");
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tvendor \"LIO\"\n\t\tproduct \"!tape\"\n\t}\n")),
              "device { vendor \"LIO\" product \"!tape\" }");
    CHECK_STR(rule_of(LIST("\twwid \"\\!x\"\n")), "");
    subject.wwid = "!x";
    CHECK_STR(rule_of(LIST("\twwid \"\\!x\"\n")), "wwid \"\\!x\"");
}

TEST(exceptions)
{
    reset();
    CHECK_STR(rule_of(LIST("\twwid \".*\"\n") EXCEPT("\twwid \"^36001405\"\n")), "");
    CHECK_STR(rule_of(EXCEPT("\twwid \"^36001405\"\n") LIST("\twwid \".*\"\n")), "");
    /* of the same kind only */
    CHECK_STR(rule_of(LIST("\tdevnode \"sd\"\n") EXCEPT("\twwid \"^36001405\"\n")),
              "devnode \"sd\"");
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tvendor \".*\"\n\t}\n")
                          EXCEPT("\tdevice {\n\t\tvendor \"LIO-ORG\"\n\t}\n")),
              "");
}

TEST(text)
{
    reset();
    CHECK_STR(rule_of(""), "");
    CHECK_STR(rule_of("}\n}\n" LIST("\twwid \"a\"\n")), "wwid \"a\"");
    CHECK_STR(rule_of("# blacklist {\n! wwid a\n" LIST("\t# wwid \"a\"\n\t! wwid a\n")), "");
    CHECK_STR(rule_of("blacklist{\r\n\twwid \"a\"   # of all\r\n}\r\n"), "wwid \"a\"");
    CHECK_STR(rule_of("blacklist {\n\twwid a # of all\n}"), "wwid \"a\"");
    CHECK_STR(rule_of("blacklist {\n\twwid \"a"), "wwid \"a\"");
    subject.wwid = "a\"b";
    CHECK_STR(rule_of(LIST("\twwid \"a\"\"b\"\n")), "wwid \"a\"b\"");
    subject.wwid = "36001405aaaa";
    CHECK_STR(rule_of(LIST("\twwid \"(\"\n\twwid \"aa\"\n")), "wwid \"aa\""); /* none is skipped */
    CHECK_STR(rule_of(LIST("\tdevice {\n\t\tvendor \"(\"\n\t\tproduct \"disk\"\n\t}\n")), "");
    CHECK_STR(rule_of("defaults {\n\twwid \"a\"\n}\n"), "");
}

TEST(limits)
{
    char *text = malloc(1 << 20);
    size_t used;

    reset();
    memset(text, 'a', 1 << 19);
    memcpy(text, "blacklist {\n\twwid ", 18);
    text[1 << 19] = '\0';
    CHECK_STR(rule_of(text), "E2BIG");
    memcpy(text, "key", 3);
    text[1000] = ' ';
    text[1001] = '\0';
    CHECK_STR(rule_of(text), "E2BIG");
    for (used = 0; used < 20; used += 2)
        memcpy(text + used, "{\n", 3);
    CHECK_STR(rule_of(text), "E2BIG");
    used = (size_t)sprintf(text, "blacklist {\n");
    for (int i = 0; i < 5000; i++)
        used += (size_t)sprintf(text + used, "\twwid \"x\"\n");
    CHECK_STR(rule_of(text), "E2BIG");
    /* would take gigabytes to compile */
    CHECK_STR(rule_of(LIST("\twwid \"(((a{255}){255}){255}){255}\"\n")), "");
    CHECK_STR(rule_of(LIST("\twwid \"^3[0-9]{7}a{4}$\"\n")), "wwid \"^3[0-9]{7}a{4}$\"");
    free(text);
}

static bool skips(const char *text)
{
    struct mp_multipathd_config *config = NULL;
    int r = mp_multipathd_config_parse(text, &config);

    CHECK_EQ(r, 0);
    bool skip = r == 0 && mp_multipathd_skips_kpartx(config, &subject);

    mp_multipathd_config_free(config);
    return skip;
}

#define SKIP(word) "\tskip_kpartx \"" word "\"\n"
#define OF_DEVICE(vendor, word)                                                                    \
    "devices {\n\tdevice {\n\t\tvendor \"" vendor "\"\n\t" SKIP(word) "\t}\n}\n"

TEST(kpartx)
{
    reset();
    CHECK(!skips(""));
    CHECK(skips("defaults {\n" SKIP("yes") "}\n"));
    CHECK(!skips("defaults {\n" SKIP("no") "}\n"));
    CHECK(!skips(LIST(SKIP("yes"))));
    CHECK(!skips("devices {\n" SKIP("yes") "}\n"));
    CHECK(skips(OF_DEVICE("^LIO", "yes")));
    CHECK(!skips(OF_DEVICE("ACME", "yes")));
    /* the last device that matches */
    CHECK(!skips(OF_DEVICE("LIO", "yes") OF_DEVICE("ORG", "no") OF_DEVICE("ACME", "yes")));
    /* a device of a list tells nothing, and one that tells nothing is no rule */
    CHECK(!skips(LIST("\tdevice {\n\t\tvendor \"LIO\"\n\t" SKIP("yes") "\t}\n")));
    CHECK_STR(rule_of(OF_DEVICE("LIO", "yes")), "");
    /* from the weakest to the strongest, in whatever order they are told */
    CHECK(!skips(OF_DEVICE("LIO", "no") "defaults {\n" SKIP("yes") "}\n"));
    CHECK(skips("overrides {\n" SKIP("yes") "}\n" OF_DEVICE("LIO", "no")));
    CHECK(!skips("overrides {\n\tprotocol {\n\t" SKIP("yes") "\t}\n}\n"));
    CHECK(!skips("multipaths {\n\tmultipath {\n\t\twwid \"36001405aaaa\"\n\t" SKIP(
        "no") "\t}\n}\noverrides {\n" SKIP("yes") "}\n"));
    /* the whole name, and no expression */
    CHECK(!skips("multipaths {\n\tmultipath {\n\t\twwid \"36001405\"\n\t" SKIP(
        "yes") "\t}\n\tmultipath {\n\t" SKIP("yes") "\t}\n}\n"));
}

/* What both daemons of the lab answered to the same configuration. */
TEST(real)
{
    static const char *const files[] = {"data/multipathd-0.9.4.conf",
                                        "data/multipathd-0.11.1.conf"};

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        static char text[16384];
        FILE *file = fopen(files[i], "r");

        CHECK(file != NULL);
        if (file == NULL)
            continue;
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
        reset();
        CHECK_STR(rule_of(text), "");
        CHECK(!skips(text));
        subject.wwid = "36001405dead";
        CHECK_STR(rule_of(text), ""); /* excepted */
        subject.protocol = "scsi:fcp";
        CHECK_STR(rule_of(text), "protocol \"scsi:fcp\"");
        reset();
        subject.devnode = "vda";
        CHECK_STR(rule_of(text), "devnode \"!^(sd[a-z]|dasd[a-z]|nvme[0-9])\"");
        reset();
        subject.vendor = "ACME";
        CHECK_STR(rule_of(text), "");
        subject.product = "tape";
        CHECK_STR(rule_of(text), "device { vendor \"ACME\" product \"!disk\" }");
        subject.vendor = "EMC";
        subject.product = "LUNZ";
        CHECK_STR(rule_of(text), "device { vendor \"EMC\" product \"LUNZ\" }");
    }
}

int main(void)
{
    RUN(kinds);
    RUN(devices);
    RUN(negation);
    RUN(exceptions);
    RUN(text);
    RUN(limits);
    RUN(kpartx);
    RUN(real);
    return test_end();
}
