//! Pure: stub until merged.
pub mod view {
    //! stub
    /// stub
    #[derive(Debug, PartialEq)]
    pub struct WorkloadView;
    /// stub
    pub trait Workload {}
    impl Workload for k8s_openapi::api::apps::v1::Deployment {}
    impl Workload for k8s_openapi::api::apps::v1::StatefulSet {}
    impl Workload for k8s_openapi::api::apps::v1::DaemonSet {}
    impl WorkloadView {
        /// stub
        pub fn project<K: Workload>(_: &K) -> Self {
            Self
        }
    }
}
