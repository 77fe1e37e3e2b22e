// SPDX-License-Identifier: GPL-2.0
/*
 * A provider of configfs-tsm whose reports are made by a program, for tests: what
 * is above it, the kernel's interface and who uses it, is the real thing. No guest
 * image has it, and an image that loads signed modules alone cannot load it.
 *
 * The program opens /dev/vouchsafe-tsm. A read returns one struct question as soon
 * as somebody asks for a report, and a write answers it: a struct answer and, behind
 * it, the two blobs. Numbers are as the machine has them.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/tsm.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

static char *provider = "sev_guest";
module_param(provider, charp, 0444);
MODULE_PARM_DESC(provider, "the name that it goes by; sev_guest has privilege levels and an auxblob");

static uint floor;
module_param(floor, uint, 0444);
MODULE_PARM_DESC(floor, "the lowest privilege level");

struct question {
	__u32 privlevel;
	__u32 inblob_len;
	__u8 inblob[TSM_INBLOB_MAX];
};

struct answer {
	__s32 error; /* 0, or what the driver fails with: a negative errno */
	__u32 outblob_len;
	__u32 auxblob_len;
};

/* How long the program may think. */
#define PATIENCE (30 * HZ)

/* configfs-tsm asks for one report at a time, so one of each is enough. */
static DEFINE_MUTEX(lock); /* of all below */
static DECLARE_WAIT_QUEUE_HEAD(changed);
static enum { IDLE, ASKED, TAKEN, ANSWERED } state;
static struct question question;
static struct answer answer;
static u8 *blobs;

static bool is(int wanted)
{
	return READ_ONCE(state) == wanted;
}

static u8 *copy(const u8 *from, size_t len)
{
	u8 *to = kvmalloc(max_t(size_t, len, 1), GFP_KERNEL);

	if (to)
		memcpy(to, from, len);
	return to;
}

/* fill hands the answer over to configfs-tsm, which frees the blobs. */
static int fill(struct tsm_report *report)
{
	if (answer.error)
		return answer.error;
	report->outblob = copy(blobs, answer.outblob_len);
	report->auxblob = copy(blobs + answer.outblob_len, answer.auxblob_len);
	if (!report->outblob || !report->auxblob)
		return -ENOMEM;
	report->outblob_len = answer.outblob_len;
	report->auxblob_len = answer.auxblob_len;
	return 0;
}

static int report_new(struct tsm_report *report, void *data)
{
	int err;

	mutex_lock(&lock);
	question.privlevel = report->desc.privlevel;
	question.inblob_len = report->desc.inblob_len;
	memcpy(question.inblob, report->desc.inblob, sizeof(question.inblob));
	WRITE_ONCE(state, ASKED);
	mutex_unlock(&lock);
	wake_up_all(&changed);

	wait_event_killable_timeout(changed, is(ANSWERED), PATIENCE);

	mutex_lock(&lock);
	err = is(ANSWERED) ? fill(report) : -ETIMEDOUT;
	WRITE_ONCE(state, IDLE);
	kvfree(blobs);
	blobs = NULL;
	mutex_unlock(&lock);
	return err;
}

static ssize_t simulator_read(struct file *f, char __user *to, size_t len, loff_t *at)
{
	struct question q;
	bool got = false;

	if (len < sizeof(q))
		return -EINVAL;
	while (!got) {
		if (!is(ASKED) && (f->f_flags & O_NONBLOCK))
			return -EAGAIN;
		if (wait_event_interruptible(changed, is(ASKED)))
			return -ERESTARTSYS;
		mutex_lock(&lock);
		got = is(ASKED);
		if (got) {
			q = question;
			WRITE_ONCE(state, TAKEN);
		}
		mutex_unlock(&lock);
	}
	return copy_to_user(to, &q, sizeof(q)) ? -EFAULT : sizeof(q);
}

static ssize_t simulator_write(struct file *f, const char __user *from, size_t len, loff_t *at)
{
	ssize_t result = len;
	struct answer a;
	u8 *b;

	if (len < sizeof(a) || copy_from_user(&a, from, sizeof(a)))
		return -EFAULT;
	if (a.error > 0 || a.outblob_len > TSM_OUTBLOB_MAX || a.auxblob_len > TSM_OUTBLOB_MAX ||
	    len != sizeof(a) + a.outblob_len + a.auxblob_len)
		return -EINVAL;
	b = vmemdup_user(from + sizeof(a), len - sizeof(a));
	if (IS_ERR(b))
		return PTR_ERR(b);
	mutex_lock(&lock);
	if (is(TAKEN)) {
		answer = a;
		swap(blobs, b);
		WRITE_ONCE(state, ANSWERED);
	} else {
		result = -EPROTO; /* nobody asked, or nobody waits any more */
	}
	mutex_unlock(&lock);
	kvfree(b);
	wake_up_all(&changed);
	return result;
}

static __poll_t simulator_poll(struct file *f, poll_table *table)
{
	poll_wait(f, &changed, table);
	return EPOLLOUT | EPOLLWRNORM | (is(ASKED) ? EPOLLIN | EPOLLRDNORM : 0);
}

static const struct file_operations simulator_operations = {
	.owner = THIS_MODULE,
	.read = simulator_read,
	.write = simulator_write,
	.poll = simulator_poll,
	.llseek = noop_llseek,
};

static struct miscdevice simulator = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vouchsafe-tsm",
	.fops = &simulator_operations,
	.mode = 0600,
};

static bool has_levels(void)
{
	return !strcmp(provider, "sev_guest");
}

static bool attribute_visible(int n)
{
	switch (n) {
	case TSM_REPORT_GENERATION:
	case TSM_REPORT_PROVIDER:
		return true;
	case TSM_REPORT_PRIVLEVEL:
	case TSM_REPORT_PRIVLEVEL_FLOOR:
		return has_levels();
	}
	return false;
}

static bool blob_visible(int n)
{
	switch (n) {
	case TSM_REPORT_INBLOB:
	case TSM_REPORT_OUTBLOB:
		return true;
	case TSM_REPORT_AUXBLOB:
		return has_levels();
	}
	return false;
}

static struct tsm_ops operations = {
	.report_new = report_new,
	.report_attr_visible = attribute_visible,
	.report_bin_attr_visible = blob_visible,
};

static int __init begin(void)
{
	int err;

	operations.name = provider;
	operations.privlevel_floor = floor;
	err = misc_register(&simulator);
	if (err)
		return err;
	err = tsm_register(&operations, NULL);
	if (err)
		misc_deregister(&simulator);
	return err;
}

static void __exit end(void)
{
	tsm_unregister(&operations);
	misc_deregister(&simulator);
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("configfs-tsm provider whose reports a program makes, for tests");
MODULE_LICENSE("GPL");
