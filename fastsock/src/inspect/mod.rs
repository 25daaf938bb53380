//! What there is to see of a running bridge: gathered when somebody asks, so that a message pays for none of it.

mod device;
mod figures;
mod process;
mod status;

pub(crate) use self::{
    device::device,
    figures::{Figures, remember},
    status::status,
};
pub use self::{
    device::{DeviceStatus, Disconnect, SessionStatus},
    status::{
        DestinationStatus, DownlinkStatus, GatewayStatus, LimitStatus, MailboxStatus, Quantiles,
        RedisStatus, RouteStatus, SlowDevice, SpoolStatus, UplinkStatus,
    },
};
