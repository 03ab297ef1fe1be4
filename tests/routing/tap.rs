// SPDX-License-Identifier: MIT OR Apache-2.0
//! A backend around another one: it writes down what the kernel has been told, refuses what the test wants refused (the
//! call is not made then), and watches the order: a route first and then its irqfd, the irqfd out and then the route.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use kvm_bindings::{kvm_irq_routing_entry, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI};
use kvm_bindings::{KVM_IRQ_ROUTING_HV_SINT, KVM_MSI_VALID_DEVID};
use msiroute::backend::{Backend, Features, Reception};
use msiroute::message::{Message, NO_REQUESTER};
use msiroute::{Error, Result};

/// A call of the backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Signal,
    Raise,
    SetRoutes,
    Bind,
    Unbind,
}

/// Which calls are refused.
#[derive(Clone, Copy, Debug, Default)]
pub enum Plan {
    #[default]
    Nothing,
    /// Once: the n-th of all.
    Nth(u64, i32),
    /// All of this kind.
    All(Call, i32),
    /// All tables with this data in a message.
    Poison(u32),
    /// Of all kinds, one in so many.
    OneIn(u64, i32),
}

/// What an entry of the table says, but for its GSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Msi(Message64),
    Pin {
        chip: u32,
        pin: u32,
    },
    /// Of a type that neither the model nor a kernel without Hyper-V takes.
    Unknown,
}

/// A message in the kernel's form: address, data, requester.
pub type Message64 = (u64, u32, u32);

/// By GSI, in order.
pub type Table = BTreeMap<u32, Vec<Target>>;

#[derive(Default)]
struct State {
    table: Arc<Table>,
    /// By the eventfd's identity, the GSI.
    irqfds: BTreeMap<u64, u32>,
    /// The kernel was asked in vain to let them go.
    stuck: Vec<u64>,
    calls: u64,
    fired: u64,
    plan: Plan,
    /// Of the order.
    violations: Vec<String>,
}

pub struct Tap {
    inner: Arc<dyn Backend>,
    state: Mutex<State>,
}

pub fn entry(gsi: u32, target: Target) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, ..Default::default() };
    match target {
        Target::Msi((address, data, requester)) => {
            entry.type_ = KVM_IRQ_ROUTING_MSI;
            entry.u.msi.address_lo = address as u32;
            entry.u.msi.address_hi = (address >> 32) as u32;
            entry.u.msi.data = data;
            if requester != NO_REQUESTER {
                entry.flags = KVM_MSI_VALID_DEVID;
                entry.u.msi.__bindgen_anon_1.devid = requester;
            }
        }
        Target::Pin { chip, pin } => {
            entry.type_ = KVM_IRQ_ROUTING_IRQCHIP;
            entry.u.irqchip.irqchip = chip;
            entry.u.irqchip.pin = pin;
        }
        Target::Unknown => entry.type_ = KVM_IRQ_ROUTING_HV_SINT + 70,
    }
    entry
}

pub fn target(entry: &kvm_irq_routing_entry) -> Target {
    match entry.type_ {
        KVM_IRQ_ROUTING_MSI => {
            // SAFETY: the entry's type says that `msi` is the member in use.
            let msi = unsafe { entry.u.msi };
            // SAFETY: of two u32 with the same meaning.
            let devid = unsafe { msi.__bindgen_anon_1.devid };
            let has_devid = entry.flags & KVM_MSI_VALID_DEVID != 0;
            let address = u64::from(msi.address_hi) << 32 | u64::from(msi.address_lo);
            Target::Msi((address, msi.data, if has_devid { devid } else { NO_REQUESTER }))
        }
        KVM_IRQ_ROUTING_IRQCHIP => {
            // SAFETY: as above, of `irqchip`.
            let pin = unsafe { entry.u.irqchip };
            Target::Pin { chip: pin.irqchip, pin: pin.pin }
        }
        _ => Target::Unknown,
    }
}

pub fn table_of(entries: &[kvm_irq_routing_entry]) -> Table {
    let mut table = Table::new();
    for entry in entries {
        table.entry(entry.gsi).or_default().push(target(entry));
    }
    table
}

/// The same for all descriptors of an eventfd.
pub fn identity(fd: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("eventfd-id:"));
    id.unwrap().trim().parse().unwrap()
}

impl Tap {
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        let table = Arc::new(table_of(&inner.default_routes()));
        Tap { inner, state: Mutex::new(State { table, ..State::default() }) }
    }

    pub fn plan(&self, plan: Plan) {
        self.state.lock().unwrap().plan = plan;
    }

    pub fn has_plan(&self) -> bool {
        !matches!(self.state.lock().unwrap().plan, Plan::Nothing)
    }

    pub fn calls(&self) -> u64 {
        self.state.lock().unwrap().calls
    }

    /// How many calls were refused because the plan says so.
    pub fn fired(&self) -> u64 {
        self.state.lock().unwrap().fired
    }

    pub fn table(&self) -> Arc<Table> {
        self.state.lock().unwrap().table.clone()
    }

    pub fn irqfds(&self) -> BTreeMap<u64, u32> {
        self.state.lock().unwrap().irqfds.clone()
    }

    pub fn stuck(&self) -> Vec<u64> {
        self.state.lock().unwrap().stuck.clone()
    }

    /// Nobody asks any more that it be let go: it is somebody's again.
    pub fn is_wanted(&self, irqfd: u64) {
        self.state.lock().unwrap().stuck.retain(|&stuck| stuck != irqfd);
    }

    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().violations)
    }

    fn taste(&self, table: &Table) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let Plan::Poison(poison) = state.plan else { return Ok(()) };
        let is_poison = |it: &Target| matches!(it, Target::Msi((_, data, _)) if *data == poison);
        if table.values().flatten().any(is_poison) {
            state.fired += 1;
            return Err(Error::new(libc::EINVAL, "the table is refused"));
        }
        Ok(())
    }

    /// Counts the call, and refuses it if it is planned so.
    fn pass(&self, call: Call) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let errno = match state.plan {
            Plan::Nth(n, errno) if n == state.calls => errno,
            Plan::All(kind, errno) if kind == call => errno,
            Plan::OneIn(n, errno) if state.calls % n == 0 => errno,
            _ => return Ok(()),
        };
        state.fired += 1;
        Err(Error::new(errno, format!("{call:?} is refused")))
    }
}

impl Backend for Tap {
    fn features(&self) -> Features {
        self.inner.features()
    }

    fn default_routes(&self) -> Vec<kvm_irq_routing_entry> {
        self.inner.default_routes()
    }

    fn signal(&self, message: &Message) -> Result<Reception> {
        self.pass(Call::Signal)?;
        self.inner.signal(message)
    }

    fn raise(&self, gsi: u32) -> Result<Reception> {
        self.pass(Call::Raise)?;
        self.inner.raise(gsi)
    }

    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        self.pass(Call::SetRoutes)?;
        let table = table_of(entries);
        self.taste(&table)?;
        self.inner.set_routes(entries)?;
        let state = &mut *self.state.lock().unwrap();
        for gsi in state.irqfds.values().filter(|gsi| !table.contains_key(gsi)) {
            state.violations.push(format!("the route of GSI {gsi} is gone under its irqfd"));
        }
        state.table = Arc::new(table);
        Ok(())
    }

    fn bind_irqfd(
        &self,
        eventfd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
        gsi: u32,
    ) -> Result<()> {
        self.pass(Call::Bind)?;
        let id = identity(eventfd.as_raw_fd());
        let state = &mut *self.state.lock().unwrap();
        if !state.table.contains_key(&gsi) {
            state.violations.push(format!("an irqfd on GSI {gsi}, which has no route"));
        }
        self.inner.bind_irqfd(eventfd, resample, gsi)?;
        state.irqfds.insert(id, gsi);
        state.stuck.retain(|&stuck| stuck != id);
        Ok(())
    }

    fn unbind_irqfd(&self, eventfd: BorrowedFd<'_>, gsi: u32) -> Result<()> {
        let id = identity(eventfd.as_raw_fd());
        let passed = self.pass(Call::Unbind);
        let state = &mut *self.state.lock().unwrap();
        if state.irqfds.get(&id) != Some(&gsi) {
            state.violations.push(format!("an irqfd is unbound that GSI {gsi} does not have"));
        }
        state.stuck.retain(|&stuck| stuck != id);
        if passed.is_err() {
            state.stuck.push(id);
            return passed;
        }
        self.inner.unbind_irqfd(eventfd, gsi)?;
        state.irqfds.remove(&id);
        Ok(())
    }

    fn close(&self) {
        self.inner.close();
    }
}
