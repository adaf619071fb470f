// A directory in memory, on loopback, that nobody may read or change without a bind.
// Arguments: port, name of the manager, his password, base, file with the first entries.
importPackage(com.unboundid.ldap.listener);
importPackage(com.unboundid.ldap.sdk);

var [port, manager, password, base, entries] = arguments;

var bases = java.lang.reflect.Array.newInstance(DN, 1);
bases[0] = new DN(base);
var settings = new InMemoryDirectoryServerConfig(bases);
settings.addAdditionalBindCredentials(manager, password);
settings.setAuthenticationRequiredOperationTypes(java.util.EnumSet.complementOf(
  java.util.EnumSet.of(OperationType.BIND, OperationType.UNBIND, OperationType.ABANDON)));
settings.setListenerConfigs(InMemoryListenerConfig.createLDAPConfig(
  "loopback", java.net.InetAddress.getLoopbackAddress(), port, null));

var server = new InMemoryDirectoryServer(settings);
server.importFromLDIF(true, entries);
server.startListening();
