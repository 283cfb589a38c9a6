//! Numbers in maps that several CPUs change at once.

/// A number in a map's value.
#[derive(Clone, Copy)]
pub struct Shared(*mut u64);

impl Shared {
    /// # Safety
    /// `number` is in a map's value, aligned, and the program ends before it is gone.
    #[inline(always)]
    pub unsafe fn new(number: *mut u64) -> Self {
        Self(number)
    }

    #[inline(always)]
    pub fn get(self) -> u64 {
        // SAFETY: see `new`. One load of a word, which is never torn.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    pub fn set(self, value: u64) {
        // SAFETY: see `new`.
        unsafe { self.0.write_volatile(value) }
    }

    /// Adds, so that what others add at the same time is not lost.
    #[inline(always)]
    pub fn add(self, amount: u64) {
        // SAFETY: see `new`; changes that word and no register. (`BPF_ATOMIC | BPF_ADD`: of what the
        // library offers on this target, nothing makes it.)
        #[cfg(target_arch = "bpf")]
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({number} + 0) += {amount}",
                number = in(reg) self.0,
                amount = in(reg) amount,
                options(nostack),
            );
        }
        #[cfg(not(target_arch = "bpf"))]
        self.set(self.get() + amount);
    }
}
