/* What std's panic message wants of an unwinder when nothing ever unwinds (panic = abort): an empty
 * backtrace. A real unwinder would be 40 kB of code that never runs. */

int _Unwind_Backtrace(void *step, void *argument)
{
	(void)step;
	(void)argument;
	return 5; /* _URC_END_OF_STACK */
}

#if defined(__arm__)
int _Unwind_VRS_Get(void *context, int class, unsigned number, int representation, void *value)
{
	(void)context;
	(void)class;
	(void)number;
	(void)representation;
	*(unsigned *)value = 0;
	return 0;
}

int _Unwind_VRS_Set(void *context, int class, unsigned number, int representation, void *value)
{
	(void)context;
	(void)class;
	(void)number;
	(void)representation;
	(void)value;
	return 0;
}

/* Named by every function's unwind table entry (ARM EHABI); 9 is _URC_FAILURE. */
int __aeabi_unwind_cpp_pr0(void)
{
	return 9;
}

int __aeabi_unwind_cpp_pr1(void)
{
	return 9;
}

int __aeabi_unwind_cpp_pr2(void)
{
	return 9;
}
#else
unsigned long _Unwind_GetIP(void *context)
{
	(void)context;
	return 0;
}
#endif
