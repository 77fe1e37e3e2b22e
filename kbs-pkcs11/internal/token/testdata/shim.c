// A PKCS#11 module that is SoftHSM, except for what the environment variable
// TOKEN_SHIM says: tokens of other makers behave so.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pkcs11go.h"

static CK_FUNCTION_LIST_PTR real;
static CK_FUNCTION_LIST list;

static const char *manner(void)
{
	const char *m = getenv("TOKEN_SHIM");
	return m ? m : "";
}

static int is(const char *m) { return strcmp(manner(), m) == 0; }

// Wrong PINs have no code of their own.
static CK_RV Login(CK_SESSION_HANDLE s, CK_USER_TYPE u, CK_UTF8CHAR_PTR pin, CK_ULONG n)
{
	CK_RV rv = real->C_Login(s, u, pin, n);
	return rv == CKR_PIN_INCORRECT && is("vague") ? CKR_FUNCTION_FAILED : rv;
}

// Objects come one by one.
static CK_RV FindObjects(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE_PTR o, CK_ULONG max, CK_ULONG_PTR n)
{
	return real->C_FindObjects(s, o, is("slow") && max > 1 ? 1 : max, n);
}

// One try of the PIN is left.
static CK_RV GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info)
{
	CK_RV rv = real->C_GetTokenInfo(slot, info);
	if (rv == CKR_OK && is("last try"))
		info->flags |= CKF_USER_PIN_FINAL_TRY;
	return rv;
}

// The token was taken out.
static CK_RV GetSlotList(CK_BBOOL present, CK_SLOT_ID_PTR slots, CK_ULONG_PTR n)
{
	if (is("pulled")) {
		*n = 0;
		return CKR_OK;
	}
	return real->C_GetSlotList(present, slots, n);
}

// The module hangs until somebody writes to a pipe.
static CK_RV SignInit(CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k)
{
	if (is("pulled"))
		return CKR_DEVICE_REMOVED;
	if (strncmp(manner(), "hangs:", 6) == 0) {
		int fd = open(manner() + 6, O_RDONLY);
		if (fd >= 0)
			close(fd);
	}
	return real->C_SignInit(s, m, k);
}

// What comes out is damaged.
static CK_RV Sign(CK_SESSION_HANDLE s, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR sig, CK_ULONG_PTR len)
{
	CK_RV rv = real->C_Sign(s, in, n, sig, len);
	if (rv == CKR_OK && sig && is("damages"))
		sig[*len / 2] ^= 1;
	return rv;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR out)
{
	void *lib = dlopen(SOFTHSM, RTLD_NOW);
	CK_C_GetFunctionList get = lib ? (CK_C_GetFunctionList)dlsym(lib, "C_GetFunctionList") : NULL;
	if (!get || get(&real) != CKR_OK)
		return CKR_GENERAL_ERROR;
	list = *real;
	list.C_Login = Login;
	list.C_FindObjects = FindObjects;
	list.C_GetTokenInfo = GetTokenInfo;
	list.C_GetSlotList = GetSlotList;
	list.C_SignInit = SignInit;
	list.C_Sign = Sign;
	*out = &list;
	return CKR_OK;
}
