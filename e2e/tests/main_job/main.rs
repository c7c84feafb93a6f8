//! The main job on real parts. Tests run one after another (`--test-threads=1`), each from the shop's
//! first state; the letters are those of the rows they prove.

mod a_registered_and_enforced;
mod b_reached;
mod c_breaker;
mod d_reload;
mod e_raw_keys;
mod f_bad_input;
mod g_deleted;
mod h_reinstalled;
mod i_limits;
mod j_least_privilege;
mod k_enforced;
mod l_worst_night;
mod m_replicas;
mod n_orphans;
mod o_node_lost;
mod p_namespace_forced;
mod q_traefik_restarted;
mod r_etcd_compacted;
mod r_etcd_full;
mod s_consul_leader;
mod t_called_by_name;
mod trouble;
