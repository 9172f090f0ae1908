//! Rules that a test can switch off one at a time, to see that the simulator notices (PROTOCOL section 9). In a release nothing
//! of this is left: [`is`] is a constant.

/// A rule that is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// Replies leave before the backup confirmed.
    AckBeforeBackup,
    /// A primary drops a backup that is silent, by itself.
    SoloByItself,
    /// Leases are looked at before a command is read from its connection, and not after it ran.
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
    /// A registration ends the life that came before, whenever it was said.
    LateRegistration,
    /// Who gets a slot empty serves at once.
    NoWaitAfterHandOut,
    /// Only the first effect of an item is applied.
    HalfAnItem,
    /// Who is promoted serves before its promises are over.
    NoPromiseWait,
    /// A fenced last holder drops its data.
    FencedHolderWipes,
    /// A learner is reported ready by a primary that does not serve yet.
    ReadyUnderPromise,
    /// LEARNER_READY of an earlier copy is taken for this one's.
    ReadyWithoutSince,
    /// Who was the target of a handover that was taken back is promoted without a wait.
    NoWaitRemembered,
    /// A member that was taken out and added again is taken for what it was.
    SessionByNode,
    /// A last holder comes back with what it held in an earlier membership.
    OldDataReturns,
    /// A former member that died before the last holder did may come back in its place.
    FormerMemberReturns,
    /// An operation takes out the last backup before the primary is where it shall be.
    LastBackupGoes,
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
