//! Rules that a test can switch off one at a time, to see that the simulator notices (PROTOCOL section 9). In a release nothing
//! of this is left: [`is`] is a constant.

/// A rule that is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// Replies leave before the backup confirmed.
    AckBeforeBackup,
    /// A primary drops a backup that is silent, by itself.
    SoloByItself,
    /// After executing nobody looks whether the lease still holds.
    NoLeaseCheckAfterRead,
    /// Reads leave before what they rest on is confirmed.
    NoReadGating,
    /// A learner is reported ready before it is in ack_set.
    ReadyBeforeAckSet,
    /// Learners are promoted as if in sync.
    PromoteLearner,
    /// A new life takes the place of the old one.
    IgnoreIncarnation,
    /// A former leader is followed again.
    LowerLeader,
    /// Survivors of a larger set stay in sync with the tails they have.
    KeepTails,
    /// The primary drops its data when a handover begins.
    WipeBeforeSwitch,
    /// Nodes pull configurations from masters only.
    PullFromMastersOnly,
    /// A lease counts whatever configuration it was given at.
    LeaseBehindPterm,
    /// A copy begins anew although its learner is counted.
    RestartCopy,
    /// RELINQUISH of an older handover is taken for this one's.
    OldRelinquish,
    /// Having lost a slot is taken for having nobody to wait for.
    EmptyAckSet,
    /// Who gets a slot empty serves at once.
    NoWaitAfterHandOut,
    /// Only the first effect of an item is applied.
    HalfAnItem,
    /// Who is promoted serves before its promises are over.
    NoPromiseWait,
    /// A fenced last holder drops its data.
    FencedHolderWipes,
}

#[cfg(test)]
thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether this rule is off on this thread.
#[inline(always)]
pub fn is(mutant: Mutant) -> bool {
    #[cfg(test)]
    return ON.get() == Some(mutant);
    #[cfg(not(test))]
    {
        let _ = mutant;
        false
    }
}

/// Switches a rule off on this thread; none = all rules hold.
#[cfg(test)]
pub fn set(mutant: Option<Mutant>) {
    ON.set(mutant);
}
